"""The momentum iterative fast gradient sign method."""

import torch

from robustbench_twicing.engine.contract import Perturbed, Queries
from robustbench_twicing.engine.losses import log_odds_against
from robustbench_twicing.engine.projections import project, steepest
from robustbench_twicing.engine.standing import Standing
from robustbench_twicing.seeding import Draws
from robustbench_twicing.spec.attention_attacks import MomentumSettings
from robustbench_twicing.spec.threats import AttackThreat
from robustbench_twicing.tensors import Images, Labels

_TINY = torch.finfo(torch.float32).tiny


def mifgsm(model: Queries, images: Images, labels: Labels, threat: AttackThreat, draws: Draws) -> Perturbed:
    """Steps along an accumulated gradient, to which each iterate adds its own, divided by its L1 norm (Dong et al.
    2018, arXiv 1710.06081, algorithm 1): signed for L∞, normalised for L2 (section 3.4), projected after every step.

    `images` (batch, 3, H, W) in the threat's space; returns the same shape, within eps of `images`. It starts at the
    image itself and draws nothing. With `iterate = "best"` a sample leaves the batch as soon as an iterate fools the
    model; one that is never fooled comes back as the last iterate, as every sample does with `"last"`.
    """
    settings = threat.settings
    assert isinstance(settings, MomentumSettings)
    eps, norm, step_size = float(threat.eps), settings.norm, settings.step_size.at(threat.eps)
    standing = Standing(images, labels, threat, draws)
    center, current, momentum = images, images, torch.zeros_like(images)
    for _ in range(settings.steps):
        logits, gradient = model.gradient(current, standing.labels, log_odds_against)
        standing.count(forwards=1, backwards=1)
        if (left := standing.judge(logits, current)) is not None:
            center, current, gradient, momentum = center[left], current[left], gradient[left], momentum[left]
            if not standing:
                break
        momentum = accumulated(momentum, gradient, settings.decay)
        current = project(current + step_size * steepest(momentum, norm), center, eps, norm, threat.bounds)
    standing.keep(current)
    return standing.perturbed()


def accumulated(momentum: Images, gradient: Images, decay: float) -> Images:
    """What is kept of the accumulated gradient, and each image's own, divided by its L1 norm (algorithm 1)."""
    size = gradient.abs().sum((1, 2, 3), keepdim=True)
    return decay * momentum + gradient / (size + _TINY)
