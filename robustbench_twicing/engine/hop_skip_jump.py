"""HopSkipJump: along the decision boundary to its nearest point, by answers alone."""

import math
from typing import NamedTuple

import torch

from robustbench_twicing.engine.contract import Perturbed, Queries
from robustbench_twicing.engine.losses import fooled
from robustbench_twicing.engine.projections import distance, into_ball, lengths, steepest
from robustbench_twicing.engine.side_by_side import BATCHES, each
from robustbench_twicing.engine.standing import Standing
from robustbench_twicing.seeding import Draws
from robustbench_twicing.spec.minimum_norm import HopSkipJumpSettings
from robustbench_twicing.spec.threats import AttackThreat
from robustbench_twicing.spec.values import Norm
from robustbench_twicing.tensors import Counts, Images, Labels, Mask, PerSample

_FIRST_PROBE = 0.1
"""Length of the first probes, of the range of pixels (the authors' code, github.com/Jianbo-Lab/HSJA, hsja.py)."""
_SHORTEST = 2.0**-20
"""Root mean square, over the values of an image, of what a probe changes at least: less is lost in float32. Ours; the
authors, who compute in float64, go on to distance / values."""
_HALVINGS = 24
"""As often as float32 tells halves of an interval apart."""


def hop_skip_jump(model: Queries, images: Images, labels: Labels, threat: AttackThreat, draws: Draws) -> Perturbed:
    """HopSkipJump (Chen et al. 2020, arXiv 1904.02144, algorithm 2), untargeted, for L2 and L∞. It asks the model for
    its answer and for nothing else.

    `images` (batch, 3, H, W) in the threat's space; returns the same shape, within eps of `images`. It begins at a
    random image that fools the model, and looks for the smallest change, whatever eps is: eps only says which of
    the images it comes by count. With `iterate = "best"` and `keeps = "first"` a sample leaves with its first
    mistake in the ball. Else one comes back as the closest, if that is within eps; who has none, as the point of
    the ball on the way to the closest mistake that it knows; who finds no image to begin at, as it is. Draws 0 to
    trials - 1 are the first images, the next ones the directions, `directions` of them each.
    """
    settings, eps = threat.settings, float(threat.eps)
    assert isinstance(settings, HopSkipJumpSettings)
    norm, bounds, leaves_early = settings.norm, threat.bounds, settings.keeps == "first"
    standing = Standing(images, labels, threat, draws)
    if eps == 0:
        return standing.perturbed()
    walk = _begin(model, standing, images, bounds, settings.trials)
    for step in range(1, settings.steps + 2):
        if not standing:
            break
        walk = _at_the_boundary(model, standing, walk, norm)
        if leaves_early and standing.judges and (done := walk.nearest <= eps).any():
            walk = walk.take(standing.leave(done, walk.closest))
        if step <= settings.steps and len(standing):
            way = _direction(model, standing, walk, settings, step, bounds)
            walk = _jumped(model, standing, walk, way, walk.gap / math.sqrt(step), bounds)
    if standing:
        standing.keep(into_ball(walk.closest, walk.center, eps, norm, bounds))
    return standing.perturbed()


class _Walk(NamedTuple):
    """The samples at work, one row each."""

    center: Images
    point: Images
    """A mistake: where the last jump led to, then where the boundary is on the way there."""
    gap: PerSample
    """From `center` to `point`."""
    closest: Images
    nearest: PerSample
    """From `center` to `closest`."""

    def take(self, mask: Mask) -> "_Walk":
        return _Walk(*(column[mask] for column in self))


def _begin(
    model: Queries, standing: Standing, images: Images, bounds: tuple[float, float] | None, trials: int
) -> _Walk:
    """At the first of some random images that fools the model; who finds none leaves as it is."""
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    if bounds is not None:
        low, high = torch.full_like(low, bounds[0]), torch.full_like(high, bounds[1])
    point = images.clone()
    missing: Mask = torch.ones_like(standing.rows, dtype=torch.bool)
    for trial in range(trials):
        rows = missing.nonzero().squeeze(1)
        if not len(rows):
            break
        uniform = standing.draws.take(rows.tolist()).uniform(trial, images.shape[1:], images.device)
        tried = low[rows] + (high - low)[rows] * uniform.to(images.dtype)
        standing.count(forwards=missing.long())
        wrong = fooled(model(tried), standing.labels[rows])
        point[rows[wrong]] = tried[wrong]
        missing[rows[wrong]] = False
    unknown = torch.full_like(lengths(images), torch.inf)
    return _Walk(images, point, unknown, images, unknown).take(standing.leave(missing, images))


def _at_the_boundary(model: Queries, standing: Standing, walk: _Walk, norm: Norm) -> _Walk:
    """By halving the way between image and mistake (paper, algorithm 1): straight for L2, through smaller and smaller
    cubes for L∞."""
    values = walk.center[0].numel()
    halvings = min(_HALVINGS, math.ceil((1.5 if norm == "L2" else 2) * math.log2(values)))
    whole = torch.ones_like(walk.gap) if norm == "L2" else distance(walk.point - walk.center, norm)
    right, wrong = torch.zeros_like(whole), whole
    for _ in range(halvings):
        middle = (right + wrong) / 2
        fools = fooled(model(_towards(walk, middle, norm)), standing.labels)
        right, wrong = torch.where(fools, right, middle), torch.where(fools, middle, wrong)
    standing.count(forwards=halvings)
    moved = (wrong < whole)[:, None, None, None]  # a way that was never halved ends at the mistake itself
    point = torch.where(moved, _towards(walk, wrong, norm), walk.point)
    gap = distance(point - walk.center, norm)
    closer = gap < walk.nearest
    closest = torch.where(closer[:, None, None, None], point, walk.closest)
    return _Walk(walk.center, point, gap, closest, torch.where(closer, gap, walk.nearest))


def _towards(walk: _Walk, far: PerSample, norm: Norm) -> Images:
    """L2: a share of the way to the mistake. L∞: the mistake, brought into the cube of that half width."""
    reach = far[:, None, None, None]
    if norm == "L2":
        return walk.center + reach * (walk.point - walk.center)
    return torch.minimum(torch.maximum(walk.point, walk.center - reach), walk.center + reach)


def _direction(
    model: Queries,
    standing: Standing,
    walk: _Walk,
    settings: HopSkipJumpSettings,
    step: int,
    bounds: tuple[float, float] | None,
) -> Images:
    """Of steepest ascent of the mistake, estimated by answers around a point of the boundary (paper, eq. 15 and 16):
    the more directions, the later the step."""
    shape, values = walk.center.shape[1:], walk.center[0].numel()
    least = torch.full_like(walk.gap, _SHORTEST * math.sqrt(values))
    probe = torch.full_like(walk.gap, _FIRST_PROBE) if step == 1 else torch.maximum(walk.gap / values, least)
    count = settings.directions_of(step)
    turned, straight = torch.zeros_like(walk.point), torch.zeros_like(walk.point)
    answers = torch.zeros_like(walk.gap)
    for batch, start in enumerate(range(0, count, settings.directions)):
        some = min(settings.directions, count - start)
        index = settings.trials + step * settings.most_batches + batch
        for rows in torch.arange(len(walk.gap)).split(max(1, BATCHES * model.batch_size // some)):
            drawn = standing.draws.take(rows.tolist())
            ways = _drawn(drawn, index, (some, *shape), settings.norm, walk.point)
            begin, reach = walk.point[rows, None], probe[rows, None, None, None, None]
            probes = begin + reach * ways
            probes = probes if bounds is None else probes.clamp(*bounds)
            ways = (probes - begin) / reach
            labels = each(standing.labels[rows.to(standing.labels.device)], some)
            says = torch.where(fooled(model(probes.flatten(0, 1)), labels), 1.0, -1.0).to(ways).unflatten(0, (-1, some))
            straight[rows] += ways.sum(1)
            turned[rows] += (says[:, :, None, None, None] * ways).sum(1)
            answers[rows] += says.sum(1)
    standing.count(forwards=count)
    mean = (answers / count)[:, None, None, None]
    one_answer = mean.abs() == 1  # all of them fool the model, or none
    return steepest(torch.where(one_answer, mean * straight, turned - mean * straight), settings.norm)


def _drawn(draws: Draws, index: int, shape: tuple[int, ...], norm: Norm, like: Images) -> torch.Tensor:
    """(samples, directions, 3, H, W) of length one: normal for L2, uniform in a cube for L∞, as the authors draw."""
    ways = draws.normal(index, shape, like.device) if norm == "L2" else 2 * draws.uniform(index, shape, like.device) - 1
    flat = ways.flatten(0, 1)
    unit: torch.Tensor = (flat / lengths(flat)[:, None, None, None]).to(like.dtype)
    return unit.reshape(ways.shape)


def _jumped(
    model: Queries,
    standing: Standing,
    walk: _Walk,
    way: Images,
    length: PerSample,
    bounds: tuple[float, float] | None,
) -> _Walk:
    """As far along `way` as still fools the model, by halves from `length` on (paper, section 4.4)."""
    point = walk.point.clone()
    at_work: Counts = torch.arange(len(length), device=length.device)
    spent = torch.zeros_like(at_work)
    for _ in range(_HALVINGS):
        tried = walk.point[at_work] + length[at_work, None, None, None] * way[at_work]
        tried = tried if bounds is None else tried.clamp(*bounds)
        wrong = fooled(model(tried), standing.labels[at_work])
        spent[at_work] += 1
        point[at_work[wrong]] = tried[wrong]
        at_work = at_work[~wrong]
        if not len(at_work):
            break
        length = length / 2
    standing.count(forwards=spent)
    return walk._replace(point=point)
