"""Auto-PGD in the L1 ball: sparse steps, and balls that shrink to eps."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from robustbench_twicing.engine.contract import Perturbed, Queries, RowLoss
from robustbench_twicing.engine.projections import project_l1
from robustbench_twicing.engine.standing import Standing
from robustbench_twicing.spec.threats import AttackThreat
from robustbench_twicing.tensors import Images, Mask, PerSample

_STAGES = ((3.0, 0.3), (2.0, 0.3), (1.0, 0.4))
"""Radius of each ball, as a multiple of eps, and its share of the steps (Croce & Hein 2021, section 4.2)."""
_SPARSER, _SHORTER, _SHORTEST, _CHANGED = 1.5, 1.5, 10.0, 0.95
"""Values that a step changes: those that the best point has, by this; by what a step is divided; of the radius, its
least part; and below what share of the last count the number of changed values counts as fallen (section 3.3)."""
_CHECKED = 0.04
"""Share of a stage's steps between two looks at step and sparsity (fra31/auto-attack, autopgd_base.py)."""


def climb_in_l1(
    model: Queries,
    standing: Standing,
    images: Images,
    threat: AttackThreat,
    steps: int,
    walks: Sequence[tuple[int, RowLoss]],
) -> Perturbed:
    """L1-APGD (Croce & Hein 2021, arXiv 2103.01208, algorithm 1, with the balls of section 4.2): one walk after the
    other, each for the samples that those before it did not break: the draw of its start, and what it climbs.

    A walk begins at a normal point, brought into the ball of 3 eps. Its steps are as long as the radius, in the values
    whose slope is steepest, and shorter as long as the best point becomes no sparser. Only points of the last ball, of
    eps itself, are judged. Who is never fooled comes back as the point of largest loss of the last walk.
    """
    eps = float(threat.eps)
    for draw, loss in walks if eps else ():
        center = images[standing.rows]
        point = center + standing.draws.normal(draw, center.shape[1:], center.device).to(center.dtype)
        for share, count in _stages(steps):
            start = project_l1(point, center, share * eps, threat.bounds)  # nobody leaves before the last ball
            point = _stage(model, standing, center, start, threat, (share, count), loss)
        if not standing:
            break
        standing.keep(point)
    return standing.perturbed()


def _stages(steps: int) -> Iterator[tuple[float, int]]:
    """(multiple of eps, steps) of each ball; the last has what is left."""
    left = steps
    for share, part in _STAGES[:-1]:
        count = min(math.ceil(part * steps), left)
        left -= count
        yield share, count
    yield _STAGES[-1][0], left


class _Walk(NamedTuple):
    """The samples at work, one row each."""

    center: Images
    current: Images
    gradient: Images
    best: Images
    best_gradient: Images
    best_loss: PerSample
    step: PerSample
    """As a multiple of the ball's radius."""
    changes: PerSample
    """Share of the values that a step changes."""
    changed: PerSample
    """Values in which the best point differed from the image at the last look."""

    def take(self, mask: Mask) -> "_Walk":
        return _Walk(*(column[mask] for column in self))


def _stage(
    model: Queries,
    standing: Standing,
    center: Images,
    start: Images,
    threat: AttackThreat,
    stage: tuple[float, int],
    loss: RowLoss,
) -> Images:
    """A walk in one ball around `center`, from `start`; returns the point of largest loss of those who stand."""
    share, steps = stage
    radius, judged = share * float(threat.eps), share == _STAGES[-1][0]
    walk = _begin(center, start)
    every = max(int(_CHECKED * steps), 1)
    for number in range(steps + 1):
        if number > 0:
            ahead = walk.current + radius * walk.step[:, None, None, None] * _sparse(walk.gradient, walk.changes)
            walk = walk._replace(current=project_l1(ahead, walk.center, radius, threat.bounds))
        logits, gradient = model.gradient(walk.current, standing.rows, loss)
        standing.count(forwards=1, backwards=1)
        walk = _ranked(walk, loss(logits, standing.rows), gradient)
        if judged and (left := standing.judge(logits, walk.current)) is not None:
            walk = walk.take(left)
            if not standing:
                break
        if number and number % every == 0:
            walk = _checked(walk)
    return walk.best


def _begin(center: Images, start: Images) -> _Walk:
    ones, changed = start.new_ones(len(start)), _changed(start, center)
    nothing = torch.zeros_like(start)
    changes = changed / center[0].numel() / _SPARSER
    return _Walk(center, start, nothing, start, nothing, -ones * torch.inf, ones, changes, changed)


def _changed(images: Images, center: Images) -> PerSample:
    """In how many values each image differs from its center."""
    return (images != center).flatten(1).sum(1).to(images.dtype)


def _sparse(gradient: Images, share: PerSample) -> Images:
    """Of length one, along that share of the values whose slope is steepest; all of them change alike.

    A NaN stays one, so that the image becomes one and the runner says so.
    """
    slopes = gradient.abs().flatten(1)
    values = slopes.shape[1]
    place = ((1 - share) * values).long().clamp(0, values - 1)
    least = slopes.sort(1).values.gather(1, place[:, None])[:, :, None, None]
    signs = torch.where(gradient.abs() >= least, gradient, 0.0).sign().where(~gradient.isnan(), gradient)
    return signs / (signs.abs().sum((1, 2, 3), keepdim=True) + 1e-10)


def _ranked(walk: _Walk, loss: PerSample, gradient: Images) -> _Walk:
    """The current point, evaluated: is it the best so far? A NaN counts as better, since it must come back."""
    better = ~(loss <= walk.best_loss)
    wide = better[:, None, None, None]
    return walk._replace(
        gradient=gradient,
        best=torch.where(wide, walk.current, walk.best),
        best_gradient=torch.where(wide, gradient, walk.best_gradient),
        best_loss=torch.where(better, loss, walk.best_loss),
    )


def _checked(walk: _Walk) -> _Walk:
    """Where the best point has become sparser: long steps again, from it. Elsewhere: shorter ones."""
    changed = _changed(walk.best, walk.center)
    sparser = changed / walk.changed < _CHANGED
    wide = sparser[:, None, None, None]
    return walk._replace(
        current=torch.where(wide, walk.best, walk.current),
        gradient=torch.where(wide, walk.best_gradient, walk.gradient),
        step=torch.where(sparser, torch.ones_like(walk.step), walk.step / _SHORTER).clamp(1 / _SHORTEST, 1.0),
        changes=changed / walk.center[0].numel() / _SPARSER,
        changed=changed,
    )
