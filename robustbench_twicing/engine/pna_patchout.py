"""Pay no attention, and patch out: steps along gradients that pass attention by, on some of the patches each."""

import torch

from robustbench_twicing.attention.altered import Alterations, altered
from robustbench_twicing.engine.contract import Perturbed, Queries
from robustbench_twicing.engine.losses import cross_entropy_loss
from robustbench_twicing.engine.mifgsm import accumulated
from robustbench_twicing.engine.patches import over_pixels, patch_grid
from robustbench_twicing.engine.projections import project, steepest
from robustbench_twicing.engine.standing import Standing
from robustbench_twicing.seeding import Draws
from robustbench_twicing.spec.attention_attacks import PnaPatchOutSettings
from robustbench_twicing.spec.threats import AttackThreat
from robustbench_twicing.tensors import Images, Labels


def pna_patchout(model: Queries, images: Images, labels: Labels, threat: AttackThreat, draws: Draws) -> Perturbed:
    """Signed steps that climb the cross-entropy plus `distance_weight` times the perturbation's L2 norm (Wei et al.
    2022, arXiv 2109.04176, sections 3.2 and 3.3): the gradient takes A as a constant, so that it reaches values only,
    and in step t the model sees the perturbation of the patches that draw t chooses.

    As in github.com/zhipeng-wei/PNA-PatchOut at 85f23c7, our_method.py, but that each image has a loss, a distance and
    patches of its own, where that code has one of each for a batch. What comes back of an image that no iterate fools
    is perturbed in all patches. Raises `UserError` for a network without such attention.
    """
    settings = threat.settings
    assert isinstance(settings, PnaPatchOutSettings)
    eps, step_size, network = float(threat.eps), settings.step_size.at(threat.eps), model.network()
    standing = Standing(images, labels, threat, draws)
    center, current, momentum = images, images, torch.zeros_like(images)
    with altered(network, Alterations(on_scores=torch.Tensor.detach)):
        for step in range(settings.steps):
            mask = patches(network, images, standing.draws, step, settings.kept)
            seen = center + mask * (current - center)
            logits, gradient = model.gradient(seen, standing.labels, cross_entropy_loss)
            standing.count(forwards=1, backwards=1)
            gradient = mask * gradient + settings.distance_weight * steepest(current - center, "L2")
            if (left := standing.judge(logits, seen)) is not None:
                center, current, gradient, momentum = center[left], current[left], gradient[left], momentum[left]
                if not standing:
                    break
            momentum = accumulated(momentum, gradient, settings.decay)
            current = project(current + step_size * steepest(momentum, "Linf"), center, eps, "Linf", threat.bounds)
    standing.keep(current)
    return standing.perturbed()


def patches(network: torch.nn.Module, images: Images, draws: Draws, step: int, kept: float) -> torch.Tensor:
    """(standing, 1, H, W): 1 in the patches that are kept, 0 in the others."""
    rows, columns = patch_grid(network, images)
    order = draws.uniform(step, (rows * columns,), images.device).argsort(1)
    chosen = torch.zeros_like(order, dtype=images.dtype)
    chosen.scatter_(1, order[:, : max(1, round(kept * rows * columns))], 1.0)
    return over_pixels(network, chosen.reshape(-1, rows, columns))
