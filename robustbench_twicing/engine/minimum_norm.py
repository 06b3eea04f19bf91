"""FMN, DDN and DeepFool: walks to the nearest mistake. eps only says which of the mistakes that they come by count.

All take `images` (batch, 3, H, W) in the threat's space and return the same shape, within eps of `images`: the closest
mistake that they came by, or the point of the ball on the way to it, or to where the walk ended. They draw nothing.
"""

import math
from collections.abc import Iterator

import torch

from robustbench_twicing.engine.contract import Perturbed, Queries
from robustbench_twicing.engine.losses import cross_entropy_loss, fooled, margin, margin_loss, wrong_classes
from robustbench_twicing.engine.projections import distance, into_ball, lengths, steepest
from robustbench_twicing.engine.side_by_side import each, logit_gaps
from robustbench_twicing.seeding import Draws
from robustbench_twicing.spec.minimum_norm import DdnSettings, DeepFoolSettings, FmnSettings
from robustbench_twicing.spec.threats import AttackThreat
from robustbench_twicing.spec.values import Norm
from robustbench_twicing.tensors import Counts, Images, Labels, Logits, Mask, PerSample

_LAST_STEP, _LAST_GAMMA = 0.01, 0.001
"""What step (as a share of the first) and gamma fall to: of foolbox 3.3.4, fast_minimum_norm.py and ddn.py."""

_BEYOND = 1e-4
"""Added to the way to a linearised boundary, in pixels: of foolbox 3.3.4, deepfool.py."""

_TINY = torch.finfo(torch.float32).tiny


def fmn(model: Queries, images: Images, labels: Labels, threat: AttackThreat, draws: Draws) -> Perturbed:
    """Fast minimum-norm (Pintor et al. 2021, arXiv 2102.12827, algorithm 1), from the image itself, for L∞ and L2.

    The radius is where the boundary would be if the margin were linear, and by gamma beyond, until a mistake is found;
    then it shrinks behind the boundary and grows before it. The paper's is not beyond: its walk creeps up to the
    boundary of a smooth network and may never cross it.
    """
    settings = threat.settings
    assert isinstance(settings, FmnSettings)
    norm, found = settings.norm, _Nearest(images, labels, threat)
    radius = torch.full_like(lengths(images), torch.inf)
    delta = torch.zeros_like(images)
    for share in _cosine(settings.steps, float(threat.eps)):
        logits, gradient = model.gradient(images + delta, labels, margin_loss)
        found.cost += 1
        found.slopes += 1
        wrong = found.look(delta, logits)
        gamma = _LAST_GAMMA + (settings.gamma - _LAST_GAMMA) * share
        linear = distance(delta, norm) + margin(logits, labels).abs() / (_dual(gradient, norm) + _TINY)
        outwards = torch.where(found.distance.isinf(), linear, radius) * (1 + gamma)
        inwards = torch.minimum(radius * (1 - gamma), found.distance)
        radius = torch.where(wrong, inwards, outwards).minimum(found.farthest)
        step = settings.step_size * (_LAST_STEP + (1 - _LAST_STEP) * share)
        delta = found.clipped(_within(delta + step * steepest(gradient, "L2"), radius, norm))
    return found.perturbed(delta)


def ddn(model: Queries, images: Images, labels: Labels, threat: AttackThreat, draws: Draws) -> Perturbed:
    """Decoupled direction and norm (Rony et al. 2019, arXiv 1811.09600, algorithm 1), for L2; values are not rounded
    to 256 levels.
    """
    settings = threat.settings
    assert isinstance(settings, DdnSettings)
    found = _Nearest(images, labels, threat)
    radius = torch.full_like(lengths(images), settings.radius)
    delta = torch.zeros_like(images)
    for share in _cosine(settings.steps, float(threat.eps)):
        logits, gradient = model.gradient(images + delta, labels, cross_entropy_loss)
        found.cost += 1
        found.slopes += 1
        wrong = found.look(delta, logits)
        delta = delta + (_LAST_STEP + (1 - _LAST_STEP) * share) * steepest(gradient, "L2")
        radius = (radius * torch.where(wrong, 1 - settings.gamma, 1 + settings.gamma)).minimum(found.farthest)
        delta = found.clipped(delta * (radius / (lengths(delta) + _TINY))[:, None, None, None])
    return found.perturbed(delta)


def deepfool(model: Queries, images: Images, labels: Labels, threat: AttackThreat, draws: Draws) -> Perturbed:
    """DeepFool (Moosavi-Dezfooli et al. 2016, arXiv 1511.04599, algorithm 2; section 3.3 for L∞).

    A sample is left alone with its first mistake. The classes that it looks at are those that the clean image's logits
    rank highest; all are asked side by side.
    """
    settings = threat.settings
    assert isinstance(settings, DeepFoolSettings)
    found = _Nearest(images, labels, threat)
    total = torch.zeros_like(images)
    if float(threat.eps) == 0:
        return found.perturbed(total)
    logits = model(images)
    found.cost += 1
    ranks = min(settings.targets, logits.shape[1] - 1)
    targets = wrong_classes(logits, labels, ranks)
    at_work = ~found.look(total, logits)
    rows, delta = at_work.nonzero().squeeze(1), torch.zeros_like(images)
    for _ in range(settings.steps):
        if not len(rows):
            break
        here, own = each((images + delta)[rows], ranks), each(labels[rows], ranks)
        gap, slope = logit_gaps(model, here, own, targets[rows].flatten())
        found.cost[rows] += ranks
        found.slopes[rows] += ranks
        near, way = _nearest_boundary(gap, slope, ranks, settings.norm)
        total[rows] += (near + _BEYOND)[:, None, None, None] * way
        delta[rows] = found.clipped((1 + settings.overshoot) * total)[rows]
        logits = model((images + delta)[rows])
        found.cost[rows] += 1
        rows = rows[~found.look(delta[rows], logits, rows)]
    return found.perturbed(delta)


def _nearest_boundary(gap: PerSample, slope: Images, ranks: int, norm: Norm) -> tuple[torch.Tensor, torch.Tensor]:
    """How far each sample's nearest linearised boundary is, of `ranks`, and the direction of length one to it."""
    far = (gap.abs() / (_dual(slope, norm) + _TINY)).unflatten(0, (-1, ranks))
    near, rank = far.min(1)
    chosen = slope.unflatten(0, (-1, ranks))[torch.arange(len(rank), device=rank.device), rank]
    return near, steepest(chosen, norm)


class _Nearest:
    """The closest mistake of each sample so far, and what was spent on it."""

    def __init__(self, images: Images, labels: Labels, threat: AttackThreat) -> None:
        self.images, self.labels, self.threat = images, labels, threat
        self.delta = torch.zeros_like(images)
        self.distance: PerSample = torch.full_like(lengths(images), torch.inf)
        """Infinite where there is none."""
        self.cost = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        self.slopes = self.cost.clone()
        bounds = threat.bounds
        room = torch.full_like(images, torch.inf)
        if bounds is not None:
            room = torch.maximum(images - bounds[0], bounds[1] - images)
        self.farthest: PerSample = distance(room, threat.settings.norm)
        """That a point within the bounds can be."""

    def look(self, delta: Images, logits: Logits, rows: Counts | None = None) -> Mask:
        """Keep the mistakes at `delta` from these images (`rows`; left out, all) that are closer; returns who is wrong.

        Where the logits are NaN the image counts as at hand: it must come back, so that the runner can say that the
        sample failed.
        """
        rows = torch.arange(len(delta), device=delta.device) if rows is None else rows
        wrong = fooled(logits, self.labels[rows])
        far = distance(delta, self.threat.settings.norm).where(~logits.isnan().any(1), -1.0)
        closer = wrong & (far < self.distance[rows])
        self.distance[rows[closer]], self.delta[rows[closer]] = far[closer], delta[closer]
        return wrong

    def clipped(self, delta: Images) -> Images:
        """So that images + delta lies within the threat's bounds."""
        bounds = self.threat.bounds
        return delta if bounds is None else (self.images + delta).clamp(*bounds) - self.images

    def perturbed(self, last: Images) -> Perturbed:
        """What is known; of those without a mistake where the walk ended."""
        far = self.distance.isinf()[:, None, None, None]
        end = self.images + torch.where(far, last, self.delta)
        threat = self.threat
        inside = into_ball(end, self.images, float(threat.eps), threat.settings.norm, threat.bounds)
        return Perturbed(inside if float(threat.eps) else self.images.clone(), self.cost, self.slopes)


def _cosine(steps: int, eps: float) -> Iterator[float]:
    """1 at the first step, falling to near 0 on half a cosine; nothing where there is no ball to search."""
    yield from ((1 + math.cos(math.pi * step / steps)) / 2 for step in range(steps if eps else 0))


def _dual(vectors: Images, norm: Norm) -> PerSample:
    """The norm in which a gradient says how far its boundary is."""
    return vectors.abs().sum((1, 2, 3)) if norm == "Linf" else lengths(vectors)


def _within(delta: Images, radius: PerSample, norm: Norm) -> Images:
    """The nearest point of a ball around zero, of each sample's own radius."""
    reach = radius[:, None, None, None]
    if norm == "Linf":
        return torch.minimum(torch.maximum(delta, -reach), reach)
    return delta * (reach / (lengths(delta)[:, None, None, None] + _TINY)).clamp_max(1.0)
