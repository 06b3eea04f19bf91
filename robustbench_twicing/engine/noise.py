"""Random points of the ball: the control that an attack must beat."""

from robustbench_twicing.engine.contract import Perturbed, Queries
from robustbench_twicing.engine.projections import random_start
from robustbench_twicing.engine.standing import Standing
from robustbench_twicing.seeding import Draws
from robustbench_twicing.spec.attacks import NoiseSettings
from robustbench_twicing.spec.threats import AttackThreat
from robustbench_twicing.tensors import Images, Labels


def noise(model: Queries, images: Images, labels: Labels, threat: AttackThreat, draws: Draws) -> Perturbed:
    """Points drawn uniformly from the ball, then clipped; the first that fools the model is kept.

    `images` (batch, 3, H, W) in the threat's space; returns the same shape, within eps of `images`. Trial t is draw t.
    With `iterate = "best"` a fooled sample leaves the batch, and one that is never fooled comes back as its last point;
    with `"last"` only that one is drawn. No gradients. The last point is left for the runner to judge.
    """
    settings = threat.settings
    assert isinstance(settings, NoiseSettings)
    eps, last = float(threat.eps), settings.trials - 1
    standing = Standing(images, labels, threat, draws)
    for trial in range(settings.trials) if standing.judges else [last]:
        center = images[standing.rows]
        points = random_start(center, eps, settings.norm, threat.bounds, standing.draws, trial)
        standing.keep(points)
        if trial < last:
            standing.count(forwards=1)
            standing.judge(model(points), points)
            if not standing:
                break
    return standing.perturbed()
