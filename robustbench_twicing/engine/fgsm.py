"""The fast gradient sign method."""

import torch

from robustbench_twicing.engine.contract import Perturbed, Queries
from robustbench_twicing.engine.losses import cross_entropy_loss
from robustbench_twicing.engine.projections import project
from robustbench_twicing.seeding import Draws
from robustbench_twicing.specs import AttackThreat
from robustbench_twicing.tensors import Images, Labels


def fgsm(model: Queries, images: Images, labels: Labels, threat: AttackThreat, draws: Draws) -> Perturbed:
    """One signed gradient step of size eps in the L∞ ball (Goodfellow et al. 2015, arXiv 1412.6572).

    `images` (batch, 3, H, W) in the threat's space; returns the same shape, within eps of `images`. Draws nothing.
    """
    eps = float(threat.eps)
    _, gradient = model.gradient(images, labels, cross_entropy_loss)
    moved = project(images + eps * gradient.sign(), images, eps, "Linf", threat.bounds)
    once = torch.ones(len(images), dtype=torch.int64, device=images.device)
    return Perturbed(moved, once, once)
