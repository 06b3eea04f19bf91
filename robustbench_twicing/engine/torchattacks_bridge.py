"""Attacks of the torchattacks package (Kim 2020, arXiv 2010.01950), behind our contract."""

import inspect
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from robustbench_twicing.catalog.torchattacks import refuse_other_spaces
from robustbench_twicing.engine.contract import Perturbed, Queries
from robustbench_twicing.engine.losses import fooled
from robustbench_twicing.engine.measured import distances, rounding
from robustbench_twicing.errors import UserError
from robustbench_twicing.seeding import Draws
from robustbench_twicing.spec.attacks import TorchattacksSettings
from robustbench_twicing.spec.threats import AttackThreat
from robustbench_twicing.spec.values import Length
from robustbench_twicing.tensors import Images, Labels, Logits, PerSample

_TOGETHER = 64
"""Images that torchattacks gets at a time. Fixed, because it draws one stream of random numbers for all of them: taken
from the batch size, the draws would change with it."""

_FEWEST_CLASSES = {"APGDT": 4, "AutoAttack": 4}
"""What the targeted DLR loss compares (Croce & Hein 2020, arXiv 2003.01690, eq. 7); the untargeted one, 3."""


def run_torchattacks(model: Queries, images: Images, labels: Labels, threat: AttackThreat, draws: Draws) -> Perturbed:
    """Run the attack that the threat names.

    `images` (batch, 3, H, W) in [0, 1]; returns the same shape. Unlike our own algorithms:

    - torchattacks draws from torch's global generator, for all images of a call at once. We seed it from (seed, sample
      ids, threat) of every 64 samples and put it back, so a run can be repeated and the batch size changes nothing, but
      a sample's draws depend on the samples beside it.
    - which calls of the model were for which sample is not known: a call's evaluations are shared out evenly.
    - an attack keeps the iterate that it keeps. With `iterate = "best"` we watch its queries as well: whenever it
      evaluates one image for each sample, a valid image that fools the model is kept as that sample's result.

    Raises `UserError` unless the protocol attacks clipped pixels, and if the model has too few classes.
    """
    refuse_other_spaces(threat.rules)
    if threat.eps.value == 0:
        none = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        return Perturbed(images.clone(), none, none)
    parts = []
    for start in range(0, len(images), _TOGETHER):
        rows = slice(start, start + _TOGETHER)
        some = draws.take(range(len(images))[rows])
        parts.append(_run_together(model, images[rows], labels[rows], threat, some.batch_seed()))
    return Perturbed(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def _run_together(model: Queries, images: Images, labels: Labels, threat: AttackThreat, seed: int) -> Perturbed:
    watched = _Watched(model, images, labels, threat)
    devices = [images.device] if images.device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.enable_grad():
        torch.manual_seed(seed)
        attack = _build(watched, threat, seed)
        attack.set_device(images.device)
        returned = attack(images, labels).detach()
    return Perturbed(
        torch.where(watched.found[:, None, None, None], watched.fooling, returned),
        _share_out(watched.forwards, images),
        _share_out(watched.backwards, images),
    )


def _build(watched: "_Watched", threat: AttackThreat, seed: int) -> Any:
    import torchattacks  # brings scipy.optimize, requests and more, which our own attacks do without

    settings = threat.settings
    assert isinstance(settings, TorchattacksSettings)
    given: dict[str, Any] = {name: _value(value, threat) for name, value in settings.arguments.items()}
    fewest = 3 if given.get("loss") == "dlr" else _FEWEST_CLASSES.get(settings.attack, 2)
    if fewest > 2 or "n_classes" in given:
        classes = watched(watched.images[:1]).shape[1]
        if classes < fewest:
            raise UserError(
                f"{settings.attack} needs at least {fewest} classes; the model has {classes}.",
                "Use pgd or square instead.",
            )
        if "n_classes" in given:
            given["n_classes"] = min(given["n_classes"], classes)
    kind = getattr(torchattacks, settings.attack)
    filled_in = {"norm": settings.norm, "seed": seed, "verbose": False}
    takes = inspect.signature(kind).parameters
    return kind(watched, **given, **{name: value for name, value in filled_in.items() if name in takes})


def _value(value: Any, threat: AttackThreat) -> Any:
    """A length as a number in the units of eps; anything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        return Length.parse(value).at(threat.eps)
    except ValueError:
        return value


def _share_out(total: int, images: Images) -> torch.Tensor:
    """(batch,) int64 that adds up to `total`, as even as can be."""
    count = len(images)
    shares = torch.full((count,), total // count, dtype=torch.int64, device=images.device)
    shares[: total % count] += 1
    return shares


class _Watched(torch.nn.Module):
    """The model as torchattacks sees it: it counts, it remembers, and no weight ever gets a gradient.

    The model itself is kept out of sight (in a `Queries`, which is no module), so torchattacks can switch neither its
    mode nor its weights.
    """

    def __init__(self, queries: Queries, images: Images, labels: Labels, threat: AttackThreat) -> None:
        super().__init__()
        self.queries, self.images, self.labels, self.threat = queries, images, labels, threat
        self.forwards = self.backwards = 0
        self.found = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        self.fooling = images.clone()
        # torchattacks looks at the first parameter to learn the device, and prints a complaint if there is none.
        self.anchor = torch.nn.Parameter(images.new_empty(0), requires_grad=False)

    def forward(self, queried: Images) -> Logits:
        self.forwards += len(queried)
        if torch.is_grad_enabled() and queried.requires_grad:
            logits: torch.Tensor = _InputGradient.apply(queried, self)
        else:
            logits = self.queries(queried)
        if self.threat.rules.iterate == "best" and queried.shape == self.images.shape:
            self._remember(queried.detach(), logits.detach())
        return logits

    def _remember(self, queried: Images, logits: Logits) -> None:
        """Keep the first valid image of each sample that fools the model. Valid makes it the sample's own."""
        eps = float(self.threat.eps)
        measured = distances(queried, self.images)[0 if self.threat.settings.norm == "Linf" else 1]
        low, high = queried.flatten(1).aminmax(dim=1)
        valid = (measured <= eps + rounding(self.images, eps)) & (low >= 0) & (high <= 1)
        new = fooled(logits, self.labels) & valid & ~self.found
        self.fooling[new] = queried[new]
        self.found |= new


class _InputGradient(torch.autograd.Function):
    """The model with a gradient for its input alone. More images than fit a chunk are evaluated again for it."""

    @staticmethod
    def forward(ctx: Any, images: Images, watched: _Watched) -> Logits:
        ctx.watched, ctx.images, ctx.graph = watched, images.detach(), None
        queries = watched.queries
        if len(images) > queries.batch_size:
            return queries(ctx.images)
        leaf = ctx.images.requires_grad_()
        with torch.enable_grad():
            logits = queries.model(leaf)
        queries.tick(len(images))
        ctx.graph = leaf, logits
        return logits.detach().clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weights: Logits) -> tuple[Images, None]:
        """`weights` (batch, classes): the gradient with respect to the logits."""
        ctx.watched.backwards += len(weights)
        if ctx.graph:
            leaf, logits = ctx.graph
            # FAB goes backward several times through one evaluation.
            return torch.autograd.grad(logits, leaf, weights, retain_graph=True)[0], None

        def weighted(logits: Logits, rows: Labels) -> PerSample:
            return (logits * weights[rows]).sum(1)

        rows = torch.arange(len(weights), device=weights.device)
        return ctx.watched.queries.gradient(ctx.images, rows, weighted)[1], None
