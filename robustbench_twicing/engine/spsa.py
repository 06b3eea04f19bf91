"""Simultaneous perturbation stochastic approximation: ascent without gradients."""

import torch

from robustbench_twicing.engine.contract import Perturbed, Queries
from robustbench_twicing.engine.losses import fooled, margin_loss
from robustbench_twicing.engine.projections import project, random_start
from robustbench_twicing.seeding import Draws
from robustbench_twicing.specs import AttackThreat, SpsaSettings
from robustbench_twicing.tensors import Images, Labels

# Kingma & Ba 2015 (arXiv 1412.6980), the defaults that Uesato et al. 2018 use.
_BETA1, _BETA2, _ADAM_EPS = 0.9, 0.999, 1e-8


def estimate_gradient(
    model: Queries,
    images: Images,
    labels: Labels,
    directions: torch.Tensor,
    distance: float,
    bounds: tuple[float, float] | None,
) -> Images:
    """Gradient of the margin loss at `images` from paired probes (Uesato et al. 2018, arXiv 1802.05666, algorithm 1).

    `directions` (batch, samples, 3, H, W) of ±1. Each is probed at +distance and -distance, clipped to `bounds`; the
    estimate is the mean of (loss⁺ - loss⁻) / (2 distance) x direction. Both halves of a pair go through the model
    together.
    """
    samples = directions.shape[1]
    total = torch.empty_like(images)
    # As many images at a time as fill one chunk of the model, at least one.
    group = max(1, model.batch_size // (2 * samples))
    for part in torch.arange(len(images), device=images.device).split(group):
        steps = directions[part] * distance
        probes = torch.stack((images[part, None] + steps, images[part, None] - steps), dim=2)
        if bounds is not None:
            probes = probes.clamp_(*bounds)
        losses = margin_loss(model(probes.flatten(0, 2)), labels[part].repeat_interleave(2 * samples))
        paired = losses.reshape(len(part), samples, 2)
        slopes = (paired[..., 0] - paired[..., 1]) / (2.0 * distance)
        total[part] = torch.einsum("bs,bschw->bchw", slopes, directions[part]) / samples
    return total


def spsa(model: Queries, images: Images, labels: Labels, threat: AttackThreat, draws: Draws) -> Perturbed:
    """SPSA with Adam in the L∞ ball (Uesato et al. 2018, arXiv 1802.05666, algorithm 1).

    `images` (batch, 3, H, W) in the threat's space; returns the same shape, within eps of `images`. A step spends
    2 x `samples` evaluations on a sample; with `iterate = "best"` one more judges the new iterate, and a fooled sample
    leaves the batch. Draw 0 is the random start, draw t the directions of step t.
    """
    settings = threat.settings
    assert isinstance(settings, SpsaSettings)
    eps, best = float(threat.eps), threat.rules.iterate == "best"
    distance, learning_rate = settings.probe_distance.at(threat.eps), settings.step_size.at(threat.eps)
    result = images.clone()
    forwards = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    backwards = torch.zeros_like(forwards)
    if eps == 0:
        return Perturbed(result, forwards, backwards)
    live = torch.arange(len(images), device=images.device)
    center, target, current = images, labels, images
    if settings.random_start:
        uniforms = draws.uniform(0, images.shape[1:], images.device).to(images.dtype)
        current = project(center + random_start(uniforms, eps), center, eps, "Linf", threat.bounds)
    first, second = torch.zeros_like(current), torch.zeros_like(current)
    for step in range(1, settings.steps + 1):
        directions = draws.take(live.tolist()).signs(step, (settings.samples, *images.shape[1:]), images.device)
        probed = current if settings.probe_center == "current" else 2.0 * center
        gradient = estimate_gradient(model, probed, target, directions.to(images.dtype), distance, threat.bounds)
        forwards[live] += 2 * settings.samples
        first = _BETA1 * first + (1 - _BETA1) * gradient
        second = _BETA2 * second + (1 - _BETA2) * gradient**2
        update = (first / (1 - _BETA1**step)) / ((second / (1 - _BETA2**step)).sqrt() + _ADAM_EPS)
        current = project(current + learning_rate * update, center, eps, "Linf", threat.bounds)
        result[live] = current
        if best and step < settings.steps:
            keep = ~fooled(model(current), target)
            forwards[live] += 1
            if not keep.all():
                live, center, target, current = live[keep], center[keep], target[keep], current[keep]
                first, second = first[keep], second[keep]
            if len(live) == 0:
                break
    return Perturbed(result, forwards, backwards)
