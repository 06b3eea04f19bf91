"""Auto-PGD: gradient ascent with momentum that finds its own step size."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from robustbench_twicing.engine.apgd_l1 import climb_in_l1
from robustbench_twicing.engine.contract import Perturbed, Queries, RowLoss
from robustbench_twicing.engine.losses import dlr, fooled, log_odds_against, targeted_dlr
from robustbench_twicing.engine.projections import project, random_start, steepest
from robustbench_twicing.engine.side_by_side import aims, in_parts
from robustbench_twicing.engine.standing import Standing
from robustbench_twicing.seeding import Draws
from robustbench_twicing.spec.attacks import ApgdSettings, ApgdTargetedSettings
from robustbench_twicing.spec.threats import AttackThreat
from robustbench_twicing.spec.values import Norm
from robustbench_twicing.tensors import Counts, Images, Labels, Logits, Mask, PerSample

# Croce & Hein 2020 (arXiv 2003.01690), section 3: how much of a step is new, and the share of steps between two
# checkpoints that must raise the loss, or the step size is halved.
_ALPHA, _RHO = 0.75, 0.75

WalkLoss = Callable[[Logits, Counts], PerSample]
"""A loss of some walks. The second argument names each: its row of the batch, times the number of ranks, plus its rank,
where rank r is that of the wrong class to which it leads; without targets there is one rank."""

Walks = Sequence[tuple[int, int]]
"""Walks of a sample that are computed side by side, in order: the draw of each one's start, and its rank."""


def apgd(model: Queries, images: Images, labels: Labels, threat: AttackThreat, draws: Draws) -> Perturbed:
    """Auto-PGD (Croce & Hein 2020, arXiv 2003.01690, algorithm 1) on the cross-entropy or the DLR loss.

    `images` (batch, 3, H, W) in the threat's space; returns the same shape, within eps of `images`. With
    `iterate = "best"` a sample leaves the batch as soon as an iterate fools the model, and later restarts get only the
    survivors; one that is never fooled comes back as the point of largest loss of the last restart, as every sample
    does with `"last"`. Draw r is the random start of restart r. Raises `UserError` if the DLR loss has too few classes.

    For the cross-entropy we climb the log odds against the label, of which it is an increasing function. The algorithm
    uses a loss only to compare points and its gradient only for a direction, so in exact arithmetic not a single
    iterate differs; in float32 the cross-entropy is flat where the model is certain.
    """
    settings = threat.settings
    assert isinstance(settings, ApgdSettings)
    objective = log_odds_against if settings.loss == "ce" else dlr

    def loss(logits: Logits, walks: Counts) -> PerSample:
        return objective(logits, labels[walks])

    if settings.norm == "L1":
        standing, walks = Standing(images, labels, threat, draws), [(draw, loss) for draw in range(settings.restarts)]
        return climb_in_l1(model, standing, images, threat, settings.steps, walks)
    rounds = [[(restart, 0)] for restart in range(settings.restarts)]
    return _climb(model, images, labels, threat, draws, settings.steps, rounds, (1, loss))


def apgd_targeted(model: Queries, images: Images, labels: Labels, threat: AttackThreat, draws: Draws) -> Perturbed:
    """Auto-PGD towards one wrong class after the other (Croce & Hein 2020, arXiv 2003.01690, section 4): those that the
    clean image's logits rank highest first, with the targeted DLR loss.

    Everything else as in `apgd`. Any wrong answer fools the model, not only the target. Restart r towards the wrong
    class of rank t (from 0) starts at draw r x (classes - 1) + t. Raises `UserError` for fewer than 4 classes.

    The first walk breaks most of the samples that break at all, so it goes alone; the others go side by side. What
    comes back is what one after the other would find: a walk stops as soon as one before it in order has fooled the
    model. `forwards` and `backwards` also count the steps that such walks had taken.
    """
    settings = threat.settings
    assert isinstance(settings, ApgdTargetedSettings)
    if settings.norm == "L1":
        return _l1_towards_targets(model, images, labels, threat, settings, draws)

    def attack(some: Images, theirs: Labels, drawn: Draws) -> Perturbed:
        return _towards_targets(model, some, theirs, threat, settings, drawn)

    return in_parts(model, images, labels, draws, settings.targets, attack)


def _towards_targets(
    model: Queries, images: Images, labels: Labels, threat: AttackThreat, settings: ApgdTargetedSettings, draws: Draws
) -> Perturbed:
    targets, walks = aims(model, images, labels, settings.targets, settings.restarts)
    ranks = targets.shape[1]

    def loss(logits: Logits, walks: Counts) -> PerSample:
        return targeted_dlr(logits, labels[walks // ranks], targets.flatten()[walks])

    later = [walks[start : start + ranks] for start in range(ranks, len(walks), ranks)]
    rounds = [some for some in (walks[:1], walks[1:ranks], *later) if some]
    found = _climb(model, images, labels, threat, draws, settings.steps, rounds, (ranks, loss))
    return found._replace(forwards=found.forwards + 1)


def _l1_towards_targets(
    model: Queries, images: Images, labels: Labels, threat: AttackThreat, settings: ApgdTargetedSettings, draws: Draws
) -> Perturbed:
    """One walk after the other: those of the L1 ball are few, and most samples leave with the first."""
    targets, walks = aims(model, images, labels, settings.targets, settings.restarts)

    def towards(rank: int) -> RowLoss:
        return lambda logits, rows: targeted_dlr(logits, labels[rows], targets[rows, rank])

    standing = Standing(images, labels, threat, draws)
    standing.count(forwards=1)
    return climb_in_l1(model, standing, images, threat, settings.steps, [(draw, towards(rank)) for draw, rank in walks])


class _Walk(NamedTuple):
    """The samples at work, one row each; in the paper's letters where it has one."""

    center: Images
    current: Images  # x^(k)
    previous: Images  # x^(k-1)
    gradient: Images  # of the loss at `current`
    loss: PerSample  # f(x^(k))
    step: PerSample  # η
    best: Images  # x_max
    best_gradient: Images
    best_loss: PerSample  # f_max
    rises: Counts
    """Steps since the last checkpoint that raised the loss."""
    checked_loss: PerSample
    """`best_loss` at the last checkpoint."""
    halved: Mask
    """The step was halved at the last checkpoint."""

    def take(self, mask: Mask) -> "_Walk":
        return _Walk(*(column[mask] for column in self))


def _climb(
    model: Queries,
    images: Images,
    labels: Labels,
    threat: AttackThreat,
    draws: Draws,
    steps: int,
    rounds: Sequence[Walks],
    loss: tuple[int, WalkLoss],
) -> Perturbed:
    """The walks of each round side by side, for the samples that the rounds before it did not break. `loss`: how many
    ranks there are, and it."""
    standing = Standing(images, labels, threat, draws)
    if float(threat.eps) == 0:
        return standing.perturbed()
    for walks in rounds:
        _round(model, standing, images[standing.rows], threat, steps, walks, loss)
        if not standing:
            break
    return standing.perturbed()


def _round(
    model: Queries,
    standing: Standing,
    images: Images,
    threat: AttackThreat,
    steps: int,
    walks: Walks,
    loss: tuple[int, WalkLoss],
) -> None:
    """`walks` of each of those who stand, whose images are `images`. A sample is broken by the first in order of its
    walks that fools the model, at the first iterate that does."""
    eps, norm, bounds = float(threat.eps), threat.settings.norm, threat.bounds
    (ranks, loss_of), since = loss, _checkpoints(steps)
    crowd = _Crowd(standing.rows, standing.labels, [rank for _, rank in walks], ranks)
    starts = [random_start(images, eps, norm, bounds, standing.draws, draw) for draw, _ in walks]
    walk = _begin(images.repeat_interleave(len(walks), 0), torch.stack(starts, dim=1).flatten(0, 1), 2 * eps)
    found = images.clone()
    for k in range(steps + 1):
        if k > 0:
            walk = _moved(walk, eps, norm, bounds, 1.0 if k == 1 else _ALPHA)
        if k < steps:
            logits, gradient = model.gradient(walk.current, crowd.names, loss_of)
        else:
            logits, gradient = model(walk.current), walk.gradient
        crowd.count(k < steps)
        walk = _ranked(walk, loss_of(logits, crowd.names), gradient)
        if standing.judges and (done := fooled(logits, crowd.labels)).any():
            walk = walk.take(crowd.leave(done, walk.current, found))
            if not len(crowd.owner):
                break
        if k in since:
            walk = _checked(walk, since[k])
    last = crowd.order == len(walks) - 1  # only who was never fooled still has it
    found[crowd.owner[last]] = walk.best[last]
    standing.count(*crowd.spent)
    standing.keep(found)
    if (done := crowd.broken_by < len(walks)).any():
        standing.leave(done, found)


class _Crowd:
    """Walks that go side by side, those of a sample one after the other."""

    def __init__(self, rows: Counts, labels: Labels, ranks: list[int], of: int) -> None:
        count, device = len(ranks), rows.device
        self.owner: Counts = torch.arange(len(rows), device=device).repeat_interleave(count)
        """Whose each walk is, of those who stood when it began."""
        self.order: Counts = torch.arange(count, device=device).repeat(len(rows))
        """Which of its sample's walks it is."""
        self.names: Counts = rows[self.owner] * of + torch.tensor(ranks, device=device)[self.order]
        self.labels: Labels = labels[self.owner]
        self.broken_by: Counts = torch.full_like(rows, count)
        """Of each sample, the first in order of the walks that fooled the model; as many as there are for none."""
        self.spent = torch.zeros_like(rows), torch.zeros_like(rows)
        """Evaluations and gradients of each sample."""

    def count(self, gradient: bool) -> None:
        """Each walk at work has cost an evaluation more, and perhaps a gradient."""
        at_work = torch.bincount(self.owner, minlength=len(self.broken_by))
        for spent in self.spent[: 1 + gradient]:
            spent += at_work

    def leave(self, done: Mask, images: Images, found: torch.Tensor) -> Mask:
        """`done` are fooled by their iterates `images`. The first in order of each sample goes into `found`, which has
        a row for each; it and all walks behind it leave. Returns which of those that were at work still are."""
        before = self.broken_by[self.owner]
        self.broken_by = self.broken_by.scatter_reduce(0, self.owner[done], self.order[done], "amin")
        now = self.broken_by[self.owner]
        first = done & (self.order == now) & (now < before)
        found[self.owner[first]] = images[first]
        left = self.order < now
        self.owner, self.order = self.owner[left], self.order[left]
        self.names, self.labels = self.names[left], self.labels[left]
        return left


def _checkpoints(steps: int) -> dict[int, int]:
    """Iterations w_j at which the step size is looked at, from w_0 = 0, and how many lie between each and the one
    before: w_j = ceil(p_j x steps) with p_1 = 0.22, and gaps that shrink by 0.03 down to 0.06 (paper, section 3)."""
    since, percent, gap, last = {0: 0}, 22, 22, 0
    while percent <= 100:
        here = -(-percent * steps // 100)
        if here > last:  # a short walk has fewer checkpoints
            since[here] = here - last
            last = here
        gap = max(gap - 3, 6)
        percent += gap
    return since


def _begin(center: Images, start: Images, step: float) -> _Walk:
    """Nothing has been evaluated yet: any loss is better than none, and none is a rise."""
    ones = start.new_ones(len(start))
    return _Walk(
        center=center,
        current=start,
        previous=start,
        gradient=torch.zeros_like(start),
        loss=ones * torch.inf,
        step=ones * step,
        best=start,
        best_gradient=torch.zeros_like(start),
        best_loss=-ones * torch.inf,
        rises=torch.zeros_like(ones, dtype=torch.int64),
        checked_loss=-ones * torch.inf,
        halved=torch.zeros_like(ones, dtype=torch.bool),
    )


def _moved(walk: _Walk, eps: float, norm: Norm, bounds: tuple[float, float] | None, alpha: float) -> _Walk:
    """The next iterate: `alpha` of a projected gradient step, 1 - `alpha` of the step before."""
    current, step = walk.current, walk.step[:, None, None, None]
    ahead = project(current + step * steepest(walk.gradient, norm), walk.center, eps, norm, bounds)
    mixed = current + alpha * (ahead - current) + (1 - alpha) * (current - walk.previous)
    return walk._replace(current=project(mixed, walk.center, eps, norm, bounds), previous=current)


def _ranked(walk: _Walk, loss: PerSample, gradient: Images) -> _Walk:
    """The current point, evaluated: does it rise, is it the best so far?"""
    # A NaN counts as better: it must come back, so that the runner can say that the sample failed.
    better = ~(loss <= walk.best_loss)
    wide = better[:, None, None, None]
    return walk._replace(
        gradient=gradient,
        loss=loss,
        rises=walk.rises + (loss > walk.loss),
        best=torch.where(wide, walk.current, walk.best),
        best_gradient=torch.where(wide, gradient, walk.best_gradient),
        best_loss=torch.where(better, loss, walk.best_loss),
    )


def _checked(walk: _Walk, length: int) -> _Walk:
    """At a checkpoint: halve the step and go back to the best point where too few of the last `length` steps rose, or
    where neither the best loss nor the step size has changed since the last checkpoint (paper, conditions 1 and 2)."""
    halve = (walk.rises < _RHO * length) | (~walk.halved & (walk.best_loss == walk.checked_loss))
    wide = halve[:, None, None, None]
    return walk._replace(
        current=torch.where(wide, walk.best, walk.current),
        gradient=torch.where(wide, walk.best_gradient, walk.gradient),
        loss=torch.where(halve, walk.best_loss, walk.loss),
        step=torch.where(halve, walk.step / 2, walk.step),
        rises=torch.zeros_like(walk.rises),
        checked_loss=walk.best_loss,
        halved=halve,
    )
