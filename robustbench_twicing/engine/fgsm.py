"""The fast gradient sign method."""

import torch

from robustbench_twicing.engine.contract import Perturbed, Queries
from robustbench_twicing.engine.losses import log_odds_against
from robustbench_twicing.engine.projections import project, steepest
from robustbench_twicing.seeding import Draws
from robustbench_twicing.spec.threats import AttackThreat
from robustbench_twicing.tensors import Images, Labels


def fgsm(model: Queries, images: Images, labels: Labels, threat: AttackThreat, draws: Draws) -> Perturbed:
    """One step of length eps up the cross-entropy: signed for L∞ (Goodfellow et al. 2015, arXiv 1412.6572, section 4),
    along the normalised gradient for L2.

    `images` (batch, 3, H, W) in the threat's space; returns the same shape, within eps of `images`. Draws nothing.
    """
    eps, norm = float(threat.eps), threat.settings.norm
    _, gradient = model.gradient(images, labels, log_odds_against)
    moved = project(images + eps * steepest(gradient, norm), images, eps, norm, threat.bounds)
    once = torch.ones(len(images), dtype=torch.int64, device=images.device)
    return Perturbed(moved, once, once)
