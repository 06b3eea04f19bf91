"""Projected gradient descent, away from a class and towards others."""

from collections.abc import Sequence

from robustbench_twicing.engine.contract import Perturbed, Queries, RowLoss
from robustbench_twicing.engine.losses import lead_of_targets, log_odds_against
from robustbench_twicing.engine.projections import project, random_start, steepest
from robustbench_twicing.engine.side_by_side import aims
from robustbench_twicing.engine.standing import Standing
from robustbench_twicing.seeding import Draws
from robustbench_twicing.spec.attacks import PgdSettings, PgdTargetedSettings, PgdWalkSettings
from robustbench_twicing.spec.threats import AttackThreat
from robustbench_twicing.tensors import Counts, Images, Labels, Logits, PerSample


def pgd(model: Queries, images: Images, labels: Labels, threat: AttackThreat, draws: Draws) -> Perturbed:
    """Iterated gradient ascent of the cross-entropy, projected to the ball after every step (Madry et al. 2018, arXiv
    1706.06083, eq. 2): signed gradients for L∞, normalised ones for L2.

    `images` (batch, 3, H, W) in the threat's space; returns the same shape, within eps of `images`. With
    `iterate = "best"` a sample leaves the batch as soon as an iterate fools the model, and later restarts get only the
    survivors; one that is never fooled comes back as the last iterate of the last restart. With `"last"` every sample
    takes every step. Draw r is the random start of restart r.
    """
    settings = threat.settings
    assert isinstance(settings, PgdSettings)

    def loss(logits: Logits, rows: Counts) -> PerSample:
        return log_odds_against(logits, labels[rows])

    standing = Standing(images, labels, threat, draws)
    return _walks(model, standing, images, threat, [(restart, loss) for restart in range(settings.restarts)])


def pgd_targeted(model: Queries, images: Images, labels: Labels, threat: AttackThreat, draws: Draws) -> Perturbed:
    """PGD towards one wrong class after the other, those that the clean image's logits rank highest first: the target's
    logit less the label's is climbed (MultiTargeted, Gowal et al. 2019, arXiv 1910.09338, eq. 6).

    Everything else as in `pgd`. Any wrong answer fools the model, not only the target. Restart r towards the wrong
    class of rank t (from 0) starts at draw r x (classes - 1) + t.
    """
    settings = threat.settings
    assert isinstance(settings, PgdTargetedSettings)
    targets, walks = aims(model, images, labels, settings.targets, settings.restarts)

    def towards(rank: int) -> RowLoss:
        return lambda logits, rows: lead_of_targets(logits, labels[rows], targets[rows, rank])

    standing = Standing(images, labels, threat, draws)
    standing.count(forwards=1)
    return _walks(model, standing, images, threat, [(draw, towards(rank)) for draw, rank in walks])


def _walks(
    model: Queries, standing: Standing, images: Images, threat: AttackThreat, walks: Sequence[tuple[int, RowLoss]]
) -> Perturbed:
    """One walk after the other, each for the samples that those before it did not break: the draw of its start, and
    what it climbs."""
    settings = threat.settings
    assert isinstance(settings, PgdWalkSettings)
    eps, norm, step_size = float(threat.eps), settings.norm, settings.step_size.at(threat.eps)
    for number, (draw, loss) in enumerate(walks, start=1):
        current, ball = _begin(images[standing.rows], threat, standing.draws, draw)
        for _ in range(settings.steps):
            logits, gradient = model.gradient(current, standing.rows, loss)
            standing.count(forwards=1, backwards=1)
            if (left := standing.judge(logits, current)) is not None:
                current, gradient, *ball = (tensor[left] for tensor in (current, gradient, *ball))
                if not standing:
                    return standing.perturbed()
            if norm == "Linf":
                current = steepest(gradient, norm).mul_(step_size).add_(current).clamp_(*ball)
            else:
                current = project(current + step_size * steepest(gradient, norm), ball[0], eps, norm, threat.bounds)
            del gradient  # or it would still be there while the next one is computed
        standing.keep(current)
        if standing.judges and number < len(walks):
            # The last iterate has not been judged yet; only those it does not fool go on to the next walk.
            standing.count(forwards=1)
            standing.judge(model(current), current)
            if not standing:
                break
    return standing.perturbed()


def _begin(center: Images, threat: AttackThreat, draws: Draws, index: int) -> tuple[Images, Sequence[Images]]:
    """Where a walk begins, and what its steps must stay in.

    L2: that is `center` itself. L∞: the lowest and the highest value of each pixel in the ball and in the valid range;
    clamping to them is `project`, bit by bit, because `center` lies in both.
    """
    settings, eps, bounds = threat.settings, float(threat.eps), threat.bounds
    assert isinstance(settings, PgdWalkSettings)
    current = random_start(center, eps, settings.norm, bounds, draws, index) if settings.random_start else center
    if settings.norm != "Linf":
        return current, (center,)
    box = (center - eps, center + eps)
    return current, box if bounds is None else tuple(side.clamp_(*bounds) for side in box)
