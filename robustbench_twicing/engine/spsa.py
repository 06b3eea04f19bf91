"""Simultaneous perturbation stochastic approximation: ascent without gradients."""

import torch

from robustbench_twicing.engine.contract import Perturbed, Queries
from robustbench_twicing.engine.losses import margin_loss
from robustbench_twicing.engine.projections import project, random_start
from robustbench_twicing.engine.standing import Standing
from robustbench_twicing.seeding import Draws, signs_of
from robustbench_twicing.spec.attacks import SpsaSettings
from robustbench_twicing.spec.threats import AttackThreat
from robustbench_twicing.tensors import Images, Labels

# Kingma & Ba 2015 (arXiv 1412.6980), the defaults that Uesato et al. 2018 use.
_BETA1, _BETA2, _ADAM_EPS = 0.9, 0.999, 1e-8

_VALUES_AT_ONCE = 2**20
"""Of directions of one image: 4 MB, which with their probes still fit the cache of a CPU."""


def estimate_gradient(
    model: Queries,
    images: Images,
    labels: Labels,
    draws: Draws,
    index: int,
    samples: int,
    distance: float,
    bounds: tuple[float, float] | None,
) -> Images:
    """Gradient of the margin loss at `images` from paired probes (Uesato et al. 2018, arXiv 1802.05666, algorithm 1).

    Each image has its own `samples` random directions of ±1 (the signs of draw `index`). Each is probed at +distance
    and -distance, clipped to `bounds`; the estimate is the mean of (loss⁺ - loss⁻) / (2 distance) x direction. Both
    halves of a pair go through the model together if its batch size is even.
    """
    total, shape = torch.zeros_like(images), images.shape[1:]
    size, half = shape.numel(), max(1, model.batch_size // 2)
    # As many images at a time as fill one chunk of the model, at least one. Of a single image's directions, as many as
    # fill one chunk, or more if they are small: the bits of all are drawn together, but as floats they would be 77 MB
    # at 224 pixels.
    group = max(1, model.batch_size // (2 * samples))
    portion = min(samples, half * max(1, _VALUES_AT_ONCE // (half * size)))
    # One buffer for all probes: fresh pages cost more than what is written into them.
    buffer = images.new_empty(min(group, len(images)), portion, 2, *shape)
    for start in range(0, len(images), group):
        rows = range(start, min(start + group, len(images)))
        center, target = images[rows.start : rows.stop, None], labels[rows.start : rows.stop]
        words = draws.take(rows).words(index, -(-samples * size // 64), images.device)
        for first in range(0, samples, portion):
            count = min(portion, samples - first)
            directions = signs_of(words, first * size, (first + count) * size).to(images.dtype)
            directions = directions.reshape(len(rows), count, *shape)
            probes = buffer[: len(rows), :count]
            torch.add(center, directions, alpha=distance, out=probes[:, :, 0])
            torch.sub(center, directions, alpha=distance, out=probes[:, :, 1])
            if bounds is not None:
                probes.clamp_(*bounds)
            losses = margin_loss(model(probes.flatten(0, 2)), target.repeat_interleave(2 * count))
            plus, minus = losses.reshape(len(rows), count, 2).unbind(2)
            slopes = (plus - minus) / (2.0 * distance)
            total[rows.start : rows.stop] += torch.einsum("bs,bschw->bchw", slopes, directions)
    return total / samples


def spsa(model: Queries, images: Images, labels: Labels, threat: AttackThreat, draws: Draws) -> Perturbed:
    """SPSA with Adam in the L∞ ball (Uesato et al. 2018, arXiv 1802.05666, algorithm 1).

    `images` (batch, 3, H, W) in the threat's space; returns the same shape, within eps of `images`. A step spends
    2 x `samples` evaluations on a sample; with `iterate = "best"` one more judges each new iterate, and a fooled sample
    leaves the batch. Draw 0 is the random start, draw t the directions of step t.

    `probe_center = "twice_clean"` repeats what cleverhans does (cleverhans/torch/attacks/spsa.py, `loss_fn` inside
    `spsa` adds x to probes that already contain it): every step probes around 2x, unclipped.
    """
    settings = threat.settings
    assert isinstance(settings, SpsaSettings)
    eps = float(threat.eps)
    distance, learning_rate = settings.probe_distance.at(threat.eps), settings.step_size.at(threat.eps)
    twice = settings.probe_center == "twice_clean"
    standing = Standing(images, labels, threat, draws)
    if eps == 0:
        return standing.perturbed()
    center, current = images, images
    if settings.random_start:
        current = random_start(center, eps, "Linf", threat.bounds, draws, 0)
    first, second = torch.zeros_like(current), torch.zeros_like(current)
    for step in range(1, settings.steps + 1):
        # The clean image has been judged already, the last iterate will be.
        if standing.judges and (step > 1 or settings.random_start):
            standing.count(forwards=1)
            if (left := standing.judge(model(current), current)) is not None:
                center, current, first, second = center[left], current[left], first[left], second[left]
                if not standing:
                    break
        gradient = estimate_gradient(
            model,
            2.0 * center if twice else current,
            standing.labels,
            standing.draws,
            step,
            settings.samples,
            distance,
            None if twice else threat.bounds,
        )
        standing.count(forwards=2 * settings.samples)
        first = _BETA1 * first + (1 - _BETA1) * gradient
        second = _BETA2 * second + (1 - _BETA2) * gradient**2
        update = (first / (1 - _BETA1**step)) / ((second / (1 - _BETA2**step)).sqrt() + _ADAM_EPS)
        current = project(current + learning_rate * update, center, eps, "Linf", threat.bounds)
    standing.keep(current)
    return standing.perturbed()
