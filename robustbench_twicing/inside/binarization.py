"""The binarization test: does an attack find an adversarial example where one is known to exist?

Zimmermann, Brendel, Tramèr & Carlini 2022 (arXiv 2206.13991). For each image the network gets another last layer over
the same features, which tells one point at the edge of the ball from points within. That point is an adversarial
example for this readout, so an attack that is strong enough for the network finds one.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import nn
from torch.nn import functional as F

from robustbench_twicing.engine.contract import Queries
from robustbench_twicing.inside.broken import Samples, broken_by
from robustbench_twicing.models.classifier import Classifier
from robustbench_twicing.seeding import Draws
from robustbench_twicing.spec.threats import AttackThreat
from robustbench_twicing.tensors import Images

INNER = 0.95
"""Part of eps that inner points fill, as in the authors' code (google-research/active-adversarial-tests at f5bb425)."""
_CLOSE = 0.01
"""How far below the edge's point the readout decides, of that point's lead over the inner ones. Their code: 0.00001,
which is below what float32 features of another batch size agree in."""
_MOST_INNER, CORNERS = 200, 200
_AT_ONCE = 50
_RIDGE = 1e-6
"""Of the features' mean variance."""

Features = Float[torch.Tensor, "images width"]
Readout = Callable[[torch.Tensor], torch.Tensor]


class Binarized(NamedTuple):
    """What the test found."""

    tested: int
    """Images for which a linear readout tells the edge's point from the inner ones; the others cannot be tested."""
    found: int
    """For how many of them the attack found an adversarial example."""
    by_chance: int
    """For how many one of 200 random corners of the ball was one: the control. Where it is high, any attack passes."""


def binarized(model: Classifier, samples: Samples, threat: AttackThreat, seed: int) -> Binarized | None:
    """Run an L∞ attack on every image's own two-class problem; None for a network that ends in no linear layer.

    Algorithm 1 of the paper with one point at the edge, a corner of the ball, and as inner points the image and others
    drawn from within, at most half as many as there are features. The readout is Fisher's discriminant, in closed
    form, where the authors fit a logistic regression; as theirs it is moved to decide just below the edge's point, and
    scaled to the range of the model's own logits. The model is as it was afterwards.
    """
    last = last_layer(model, samples.images[:1])
    if last is None:
        return None
    inner = max(8, min(_MOST_INNER, last.in_features // 2))
    tested = found = by_chance = 0
    for row in range(len(samples.ids)):
        mask = torch.arange(len(samples.ids), device=samples.images.device) == row
        one = samples.take(mask)
        one = one._replace(labels=torch.zeros_like(one.labels))
        draws, asked = Draws(seed, one.ids, "binarization"), Queries(model, model.batch_size)
        with _last_layer_is(last, lambda features: features):
            taken = torch.cat([asked(some) for some in _points(one.images, float(threat.eps), inner, draws)])
        readout = _learned(last, taken[: inner + 1])
        if readout is None:
            continue
        with _last_layer_is(last, readout):
            if int(asked(_edge(one.images, float(threat.eps), draws)).argmax(1)) != 1:
                continue  # it does not hold in another batch: told apart by rounding only
            broken, _ = broken_by(model, one, threat, seed, mask[mask])
        tested += 1
        found += bool(broken)
        by_chance += bool((readout(taken[inner + 1 :]).argmax(1) == 1).any())
    return Binarized(tested, found, by_chance)


def last_layer(model: Classifier, images: Images) -> nn.Linear | None:
    """The linear layer whose outputs are the logits, if there is one."""
    heard: list[tuple[nn.Linear, torch.Tensor]] = []
    linear = [module for module in model.network.modules() if isinstance(module, nn.Linear)]
    hooks = [module.register_forward_hook(lambda which, args, out: heard.append((which, out))) for module in linear]
    try:
        logits = Queries(model, model.batch_size)(images)
    finally:
        for hook in hooks:
            hook.remove()
    ends = [module for module, out in heard if out.shape == logits.shape and torch.equal(out.float(), logits)]
    return ends[-1] if ends and [module for module, _ in heard].count(ends[-1]) == 1 else None


@contextmanager
def _last_layer_is(last: nn.Linear, readout: Readout) -> Iterator[None]:
    def answer(module: nn.Module, args: tuple[Any, ...], out: torch.Tensor) -> torch.Tensor:
        return readout(args[0])

    hook = last.register_forward_hook(answer)
    try:
        yield
    finally:
        hook.remove()


def _points(image: Images, eps: float, inner: int, draws: Draws) -> Iterator[Images]:
    """The image, points within, the one at the edge, and random corners; some at a time."""
    yield image
    for number, start in enumerate(range(1, inner, _AT_ONCE)):
        shape = (min(_AT_ONCE, inner - start), *image.shape[1:])
        within = 2 * draws.uniform(1 + number, shape, image.device)[0] - 1
        yield (image + INNER * eps * within).clamp(0, 1)
    yield _edge(image, eps, draws)
    for number in range(0, CORNERS, _AT_ONCE):
        signs = draws.signs(1000 + number, (_AT_ONCE, *image.shape[1:]), image.device)[0]
        yield (image + eps * signs).clamp(0, 1)


def _edge(image: Images, eps: float, draws: Draws) -> Images:
    return (image + eps * draws.signs(0, image.shape[1:], image.device)).clamp(0, 1)


def _learned(last: nn.Linear, features: Features) -> Readout | None:
    """Two logits, of an inner point and of the edge's, which is the last row; None if no hyperplane separates them."""
    x = features.double()
    within, edge = x[:-1], x[-1]
    centered, towards = within - within.mean(0), edge - within.mean(0)
    ridge = (_RIDGE * centered.square().sum() / len(edge)).clamp_min(1e-30)
    # (CᵀC + r)⁻¹t by the smaller of CᵀC and CCᵀ (Woodbury), times r, which changes no decision.
    gram = centered @ centered.T + ridge * torch.eye(len(within), dtype=x.dtype, device=x.device)
    weight = towards - centered.T @ torch.linalg.solve(gram, centered @ towards)
    scores = x @ weight
    lead = scores[-1] - scores[:-1].max()
    if not bool(lead.isfinite()) or float(lead) <= 0:
        return None
    own = F.linear(features, last.weight, last.bias)
    scale = ((own.max() - own.min()).double() / (scores.max() - scores.min())).nan_to_num(1.0)
    bias = -scores[-1] + _CLOSE * lead

    def readout(asked: torch.Tensor) -> torch.Tensor:
        edge_score = 0.5 * scale * (asked.double() @ weight + bias)
        return torch.stack((-edge_score, edge_score), 1).to(asked.dtype)

    return readout
