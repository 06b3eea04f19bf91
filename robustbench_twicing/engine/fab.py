"""FAB: the way to the nearest point of the decision boundary, one linearisation after the other."""

from typing import NamedTuple

import torch

from robustbench_twicing.engine.contract import Perturbed, Queries
from robustbench_twicing.engine.hyperplane import to_hyperplane
from robustbench_twicing.engine.losses import fooled, wrong_classes
from robustbench_twicing.engine.projections import distance, into_ball, lengths, project
from robustbench_twicing.engine.side_by_side import each, in_parts, logit_gaps
from robustbench_twicing.engine.standing import Standing
from robustbench_twicing.seeding import Draws
from robustbench_twicing.spec.minimum_norm import FabTargetedSettings
from robustbench_twicing.spec.threats import AttackThreat
from robustbench_twicing.tensors import Counts, Images, Labels, Logits, PerSample

# Of fra31/auto-attack (autoattack/fab_base.py): the shortest step that is told from none.
_SHORTEST = 1e-8

_TINY = torch.finfo(torch.float32).tiny


def fab_targeted(model: Queries, images: Images, labels: Labels, threat: AttackThreat, draws: Draws) -> Perturbed:
    """Targeted FAB (Croce & Hein 2020, arXiv 1907.02044, algorithm 1; targets as in arXiv 2003.01690, section 5): steps
    to the linearised boundary between the label and a wrong class, drawn towards the image, all targets side by side.

    `images` (batch, 3, H, W) in the threat's space; returns the same shape, within eps of `images`. The targets are the
    classes that the clean image's logits rank highest. It looks for the smallest change, whatever eps is: eps only says
    which of the images it comes by count, and how far a restart begins. With `iterate = "best"` and `keeps = "first"` a
    sample leaves the batch with the first iterate within eps that fools the model. Else one comes back as the closest
    such iterate. Whoever has none comes back as the point of the ball on the way to the closest mistake that it knows,
    or to where the walk to its last target ended. Restart r towards the class of rank t starts at draw
    r x (classes - 1) + t; the first starts at the image, and draws nothing.

    As in fra31/auto-attack there is no final search between the image and what was found (paper, step 3).
    """
    settings = threat.settings
    assert isinstance(settings, FabTargetedSettings)

    def attack(some: Images, theirs: Labels, drawn: Draws) -> Perturbed:
        return _attacked(model, some, theirs, threat, settings, drawn)

    return in_parts(model, images, labels, draws, settings.targets, attack)


def _attacked(
    model: Queries, images: Images, labels: Labels, threat: AttackThreat, settings: FabTargetedSettings, draws: Draws
) -> Perturbed:
    standing = Standing(images, labels, threat, draws)
    if float(threat.eps) == 0:
        return standing.perturbed()
    clean = model(images)
    standing.count(forwards=1)
    if (left := standing.judge(clean, images)) is not None:
        images, clean = images[left], clean[left]
    if not standing:
        return standing.perturbed()
    targets = wrong_classes(clean, standing.labels, min(settings.targets, clean.shape[1] - 1))
    known = _Known(images, images.clone(), torch.full_like(lengths(images), torch.inf), targets)
    for restart in range(settings.restarts):
        known = _search(model, standing, known, restart * (clean.shape[1] - 1), threat)
        if not standing:
            break
    return standing.perturbed()


class _Known(NamedTuple):
    """Of each sample at work."""

    center: Images
    closest: Images
    """The nearest mistake so far."""
    distance: PerSample
    """Of it; infinite where there is none."""
    targets: Counts
    """(samples, targets)"""

    def take(self, mask: torch.Tensor) -> "_Known":
        return _Known(*(column[mask] for column in self))


def _search(model: Queries, standing: Standing, known: _Known, draw: int, threat: AttackThreat) -> _Known:
    """One walk towards each target of each sample. What is kept of it is in `standing`; returns what is known after."""
    settings, bounds, eps = threat.settings, threat.bounds, float(threat.eps)
    assert isinstance(settings, FabTargetedSettings)
    leaves_early = standing.judges and settings.keeps == "first"
    ranks = known.targets.shape[1]
    current = _start(known, draw, threat, standing.draws) if draw else each(known.center, ranks)
    for _ in range(settings.steps):
        labels, center = each(standing.labels, ranks), each(known.center, ranks)
        gap, slope = logit_gaps(model, current, labels, known.targets.flatten())
        current = _stepped(current, center, gap, slope, settings, bounds)
        logits = model(current)
        standing.count(forwards=2 * ranks, backwards=ranks)
        wrong = fooled(logits, labels)
        if not wrong.any():
            continue
        far = distance(current - center, settings.norm).where(wrong, torch.inf)
        known = _closer(known, current, far, logits)
        back = center + settings.beta * (current - center)
        current = torch.where(wrong[:, None, None, None], back, current)
        if leaves_early and (done := ~(known.distance > eps)).any():
            left = ~done
            standing.leave(done, known.closest)
            known, current = known.take(left), current.unflatten(0, (-1, ranks))[left].flatten(0, 1)
            if not standing:
                return known
    far = known.distance.isinf()[:, None, None, None]
    best = torch.where(far, current.unflatten(0, (-1, ranks))[:, -1], known.closest)
    standing.keep(into_ball(best, known.center, eps, settings.norm, bounds))
    return known


def _start(known: _Known, draw: int, threat: AttackThreat, draws: Draws) -> Images:
    """Half of eps away from the image in a random direction, one for each target."""
    center, eps, norm = known.center, float(threat.eps), threat.settings.norm
    starts = []
    for rank in range(known.targets.shape[1]):
        if norm == "Linf":
            way = 2.0 * draws.uniform(draw + rank, center.shape[1:], center.device) - 1.0
        else:
            way = draws.normal(draw + rank, center.shape[1:], center.device)
        way = way.to(center.dtype)
        length = distance(way, norm)[:, None, None, None]
        starts.append(project(center + 0.5 * eps * way / (length + _TINY), center, eps, norm, threat.bounds))
    return torch.stack(starts, dim=1).flatten(0, 1)


def _stepped(
    current: Images,
    center: Images,
    gap: PerSample,
    slope: Images,
    settings: FabTargetedSettings,
    bounds: tuple[float, float] | None,
) -> Images:
    """The next iterate (paper, eq. 9): from `current` and from `center` to the linearised boundary and a bit beyond,
    `center`'s the more, the nearer it is."""
    norm, eta = settings.norm, settings.eta
    from_center = gap + (slope * (center - current)).sum((1, 2, 3), dtype=torch.float64).to(gap.dtype)
    here = to_hyperplane(current, slope, -gap, norm, bounds)
    there = to_hyperplane(center, slope, -from_center, norm, bounds)
    near, far = (distance(step, norm).clamp_min(_SHORTEST) for step in (here, there))
    alpha = (near / (near + far)).clamp_max(settings.alpha_max)[:, None, None, None]
    moved = (1 - alpha) * (current + eta * here) + alpha * (center + eta * there)
    return moved if bounds is None else moved.clamp(*bounds)


def _closer(known: _Known, current: Images, far: PerSample, logits: Logits) -> _Known:
    """With the nearest of each sample's new mistakes, if it is nearer than what was known.

    Where the logits are NaN the image counts as at hand: it must come back, so that the runner can say that the sample
    failed.
    """
    ranks = known.targets.shape[1]
    far = torch.where(logits.isnan().any(1), -1.0, far).unflatten(0, (-1, ranks))
    nearest, rank = far.min(1)
    nearer = nearest < known.distance
    found = current.unflatten(0, (-1, ranks))[torch.arange(len(rank), device=rank.device), rank]
    return known._replace(
        closest=torch.where(nearer[:, None, None, None], found, known.closest),
        distance=torch.where(nearer, nearest, known.distance),
    )
