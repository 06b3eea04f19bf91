"""Patch-Fool: a few patches, chosen by attention, become whatever fools the model and draws attention."""

import torch
from jaxtyping import Float, Int

from robustbench_twicing.attention.altered import Alterations, altered, require_attention
from robustbench_twicing.engine.contract import LossFunction, Perturbed, Queries
from robustbench_twicing.engine.losses import cross_entropy_loss
from robustbench_twicing.engine.patches import over_pixels, patch_grid
from robustbench_twicing.engine.standing import Standing
from robustbench_twicing.seeding import Draws
from robustbench_twicing.spec.attention_attacks import PatchFoolSettings
from robustbench_twicing.spec.threats import AttackThreat
from robustbench_twicing.tensors import Images, Labels, Logits, PerSample

Chosen = Int[torch.Tensor, "batch patches"]
Received = Float[torch.Tensor, "batch rows tokens"]

_BETAS, _EPSILON, _EVERY = (0.9, 0.999), 1e-8, 10
"""Adam's, and after how many steps its rate falls, as in the authors' code."""


def patch_fool(model: Queries, images: Images, labels: Labels, threat: AttackThreat, draws: Draws) -> Perturbed:
    """Adam on the pixels of some patches, none of the others changed (Fu et al. 2022, arXiv 2203.08392, section 3).

    The patches are those that receive the most attention in block `chosen_in`, means over heads and rows; their pixels
    begin at random and stay within eps of the image and within its range, which is all that bounds them at eps 1. The
    gradient is that of the cross-entropy plus, for each block from the second to the middle, `attention_weight` times
    that of the mean log attention to the first patch, without its part against the cross-entropy's. As in
    github.com/GATECH-EIC/Patch-Fool at 9638ec3, but that the projection divides by the squared norm, where that code
    divides by the norm. Attention is A, whatever the method makes of it. Raises `UserError` for a network without such
    attention.
    """
    settings = threat.settings
    assert isinstance(settings, PatchFoolSettings)
    eps, network = float(threat.eps), model.network()
    depth = len(require_attention(network))
    heard = _Heard({min(settings.chosen_in, depth - 1), *range(1, depth // 2)})
    standing = Standing(images, labels, threat, draws)
    with altered(network, heard.of_block):
        model(images)
        standing.count(forwards=1)
        rows, columns = patch_grid(network, images)
        in_one = heard.taken(min(settings.chosen_in, depth - 1))
        received = model.asked(images, in_one)[:, :, -rows * columns :].mean(1)
        chosen: Chosen = received.argsort(dim=1, descending=True, stable=True)[:, : settings.patches]
        grid = torch.zeros_like(received).scatter(1, chosen, 1.0).reshape(-1, rows, columns)
        walk = _Walk(images, over_pixels(network, grid).to(images.dtype), eps, threat.bounds)
        walk.current = walk.start(draws.uniform(0, images.shape[1:], images.device))
        first = chosen[:, 0] - rows * columns  # from the end of a row: prefix tokens stand in front
        for step in range(settings.steps):
            logits, gradient = model.gradient(walk.current, standing.labels, cross_entropy_loss)
            heard.forget()
            standing.count(forwards=1, backwards=1)
            if (left := standing.judge(logits, walk.current)) is not None:
                walk.take(left)
                gradient, first = gradient[left], first[left]
                if not standing:
                    break
            total = gradient = walk.mask * gradient
            for number in range(1, depth // 2):
                _, pull = model.gradient(walk.current, first, heard.attention_in(number))
                standing.count(forwards=1, backwards=1)
                total = total + settings.attention_weight * without_conflict(walk.mask * pull, gradient)
            rate = settings.step_size.at(threat.eps) * settings.step_decay ** (step // _EVERY)
            walk.climb(total, rate, step + 1)
    standing.keep(walk.current)
    return standing.perturbed()


def without_conflict(gradient: Images, other: Images) -> Images:
    """`gradient`, image by image without its part along `other` where the two point apart (Yu et al. 2020, PCGrad)."""
    product = (gradient * other).sum((1, 2, 3), keepdim=True)
    size = other.square().sum((1, 2, 3), keepdim=True)
    return gradient - (product / size.clamp_min(torch.finfo(size.dtype).tiny)).clamp_max(0.0) * other


class _Walk:
    """The images on their way, and Adam's memory."""

    def __init__(self, images: Images, mask: torch.Tensor, eps: float, bounds: tuple[float, float] | None) -> None:
        low, high = bounds or (-torch.inf, torch.inf)
        self.images, self.mask, self.current = images, mask, images
        self.low, self.high = (images - eps).clamp_min(low), (images + eps).clamp_max(high)
        self.mean, self.square = torch.zeros_like(images), torch.zeros_like(images)

    def start(self, drawn: Images) -> Images:
        """A point drawn uniformly from what is allowed."""
        return self._within(self.low + drawn * (self.high - self.low))

    def take(self, left: torch.Tensor) -> None:
        """Keep the images that still stand."""
        for name, held in list(vars(self).items()):
            setattr(self, name, held[left])

    def climb(self, gradient: Images, rate: float, step: int) -> None:
        """Adam's step upwards (Kingma & Ba 2015, algorithm 1), back into what is allowed."""
        first, second = _BETAS
        self.mean = first * self.mean + (1 - first) * gradient
        self.square = second * self.square + (1 - second) * gradient.square()
        mean, square = self.mean / (1 - first**step), self.square / (1 - second**step)
        self.current = self._within(self.current + rate * mean / (square.sqrt() + _EPSILON))

    def _within(self, moved: Images) -> Images:
        return torch.where(self.mask > 0, torch.minimum(torch.maximum(moved, self.low), self.high), self.images)


class _Heard:
    """A, its mean over heads, of some blocks."""

    def __init__(self, numbers: set[int]) -> None:
        self.numbers = numbers
        self._held: dict[int, list[Received]] = {number: [] for number in numbers}

    def of_block(self, number: int) -> Alterations:
        def hear(scores: torch.Tensor) -> torch.Tensor:
            if number in self.numbers:
                self._held[number].append(scores.softmax(-1).mean(1))
            return scores

        return Alterations(on_scores=hear)

    def taken(self, number: int) -> list[Received]:
        """Of all chunks of images since it was last taken or forgotten."""
        found = self._held[number]
        self.forget()
        return found

    def forget(self) -> None:
        self._held = {number: [] for number in self.numbers}

    def attention_in(self, number: int) -> LossFunction:
        """A loss whose labels are places of patches: the mean log attention that each image's receives."""

        def loss(logits: Logits, places: Labels) -> PerSample:
            received = self.taken(number)[-1][: len(places)]  # a model may fill a batch up
            at = (places % received.shape[2])[:, None, None].expand(-1, received.shape[1], 1)
            result: torch.Tensor = received.gather(2, at).clamp_min(torch.finfo(received.dtype).tiny).log().mean((1, 2))
            return result

        return loss
