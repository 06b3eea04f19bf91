"""Random points of the ball: the control that an attack must beat."""

import torch

from robustbench_twicing.engine.contract import Perturbed, Queries
from robustbench_twicing.engine.losses import fooled
from robustbench_twicing.engine.projections import random_start
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
    result = images.clone()
    forwards = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    live = torch.arange(len(images), device=images.device)
    for trial in range(settings.trials) if threat.rules.iterate == "best" else [last]:
        points = random_start(images[live], eps, settings.norm, threat.bounds, draws.take(live.tolist()), trial)
        result[live] = points
        if trial < last:
            done = fooled(model(points), labels[live])
            forwards[live] += 1
            live = live[~done]
            if len(live) == 0:
                break
    return Perturbed(result, forwards, torch.zeros_like(forwards))
