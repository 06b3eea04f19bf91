"""Adaptive token tuning: MI-FGSM along gradients whose extreme tokens are made smaller, on the patches that matter."""

from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch.nn import functional as F

from robustbench_twicing.attention.altered import Alterations, altered, require_attention
from robustbench_twicing.engine.contract import Perturbed, Queries
from robustbench_twicing.engine.losses import cross_entropy_loss
from robustbench_twicing.engine.mifgsm import accumulated
from robustbench_twicing.engine.patches import over_pixels, patch_grid, patch_size
from robustbench_twicing.engine.projections import project, steepest
from robustbench_twicing.engine.standing import Standing
from robustbench_twicing.seeding import Draws
from robustbench_twicing.spec.attention_attacks import AttSettings
from robustbench_twicing.spec.threats import AttackThreat
from robustbench_twicing.tensors import Images, Labels, Logits, PerSample

Scores = Float[torch.Tensor, "batch heads rows tokens"]
Tokens = Float[torch.Tensor, "batch tokens width"]
Factor = Float[torch.Tensor, "batch"]

_TINY = torch.finfo(torch.float32).tiny


def att(model: Queries, images: Images, labels: Labels, threat: AttackThreat, draws: Draws) -> Perturbed:
    """Signed steps along an accumulated gradient of the cross-entropy (Ming et al. 2024, NeurIPS, "Boosting the
    Transferability of Adversarial Attack on Vision Transformer with Adaptive Token Tuning").

    Gradients of scores, of queries, keys and values, and of MLPs are scaled, and those of extreme tokens once more, by
    a factor that falls where the gradient varies more than in the block behind. No gradient goes through the attention
    of the last blocks. In step t the model sees the perturbation of those patches whose draw is below a threshold,
    which sinks from 0.99 to what the importance of the patch says. As in github.com/MisterRpeng/ATT at ed8616e
    (methods.py, `vit_base_patch16_224`), but that variances, extreme tokens and importance are each image's own, where
    that code takes those of a batch or of its first image. Raises `UserError` for a network without such attention.
    """
    settings = threat.settings
    assert isinstance(settings, AttSettings)
    eps, step_size, network = float(threat.eps), settings.step_size.at(threat.eps), model.network()
    standing = Standing(images, labels, threat, draws)
    center, current, momentum = images, images, torch.zeros_like(images)
    tuning = _Tuning(settings, len(require_attention(network)))
    with altered(network, tuning.of_block):
        least = settings.kept_least + settings.kept_more * _importance(model, network, images, labels)
        standing.count(forwards=1, backwards=1)
        for step in range(settings.steps):
            threshold = 0.99 - (0.99 - least) / settings.steps * (step + 1)
            drawn = standing.draws.uniform(step, least.shape[1:], images.device)
            mask = over_pixels(network, (drawn <= threshold).to(images.dtype))
            seen = center + mask * (current - center)
            logits, gradient = model.gradient(seen, standing.labels, cross_entropy_loss)
            standing.count(forwards=1, backwards=1)
            gradient = mask * gradient
            if (left := standing.judge(logits, seen)) is not None:
                center, current, gradient, momentum = center[left], current[left], gradient[left], momentum[left]
                least = least[left]
                if not standing:
                    break
            momentum = accumulated(momentum, gradient, settings.decay)
            current = project(current + step_size * steepest(momentum, "Linf"), center, eps, "Linf", threat.bounds)
    standing.keep(current)
    return standing.perturbed()


class _Tuning:
    """What is done to gradients on their way back, block by block from the last; one forward and backward at a time."""

    def __init__(self, settings: AttSettings, blocks: int) -> None:
        self.settings = settings
        self.attending = round(settings.attending * blocks)
        self.spread: dict[str, Factor] = {}
        """Variance of the gradient in the block behind, by what it is the gradient of."""

    def of_block(self, number: int) -> Alterations:
        def on_scores(scores: torch.Tensor) -> torch.Tensor:
            if number == 0:  # a forward begins
                self.spread = {}
            if scores.requires_grad:
                left = self.settings.attention if number < self.attending else 0.0
                scores.register_hook(partial(self._scores, left))
            return scores

        return Alterations(
            on_scores, partial(self._tokens, "qkv", self.settings.qkv), partial(self._tokens, "mlp", self.settings.mlp)
        )

    def _scores(self, left: float, gradient: torch.Tensor) -> torch.Tensor:
        result = left * gradient
        result = with_tuned_rows_and_columns(self._factor("scores", result), result)
        self.spread["scores"] = _variance(result)
        return result

    def _tokens(self, what: str, left: float, gradient: torch.Tensor) -> torch.Tensor:
        result = left * gradient
        result = with_tuned_tokens(self._factor(what, result), result)
        self.spread[what] = _variance(result)
        return result

    def _factor(self, what: str, gradient: torch.Tensor) -> Factor:
        usual = torch.full_like(gradient[:, 0].flatten(1)[:, 0], self.settings.extreme)
        before = self.spread.get(what)
        if before is None:
            return usual
        change = 1 - (_variance(gradient) / before.clamp_min(_TINY)).sqrt()
        return (usual + self.settings.adaptive * change).clamp(0, 1).where(before > 0, usual)


def _variance(gradient: torch.Tensor) -> Factor:
    return gradient.flatten(1).var(1)


def with_tuned_rows_and_columns(factor: Factor, gradient: Scores) -> Scores:
    """The gradient of scores, times `factor` in the rows and columns of each head's largest and smallest, once for
    each row and column that an entry lies in."""
    rows, across = (torch.arange(count, device=gradient.device) for count in gradient.shape[2:])
    flat, result, times = gradient.flatten(2), gradient, factor[:, None, None]
    one = torch.ones_like(times)
    for place in (flat.argmax(2), flat.argmin(2)):
        row, column = place[:, :, None] // gradient.shape[3], place[:, :, None] % gradient.shape[3]
        in_row, in_column = torch.where(rows == row, times, one), torch.where(across == column, times, one)
        result = result * in_row[..., None] * in_column[..., None, :]
    return result


def with_tuned_tokens(factor: Factor, gradient: Tokens) -> Tokens:
    """The gradient of tokens, times `factor` for the largest and the smallest token of each channel."""
    tokens, times = torch.arange(gradient.shape[1], device=gradient.device)[:, None], factor[:, None, None]
    result = gradient
    for place in (gradient.argmax(1, keepdim=True), gradient.argmin(1, keepdim=True)):
        result = result * torch.where(tokens == place, times, torch.ones_like(times))
    return result


def _importance(model: Queries, network: torch.nn.Module, images: Images, labels: Labels) -> torch.Tensor:
    """(batch, rows, columns) from 0 to 1: tokens behind the last block but one, times their gradient of all logits."""
    rows, columns = patch_grid(network, images)
    blocks = require_attention(network)
    products: list[torch.Tensor] = []

    def hear(module: torch.nn.Module, args: tuple[Any, ...], out: torch.Tensor) -> None:
        out.register_hook(lambda gradient: products.append((out.detach() * gradient).sum(2)[:, -rows * columns :]))

    hook = blocks[max(0, len(blocks) - 2)].register_forward_hook(hear)
    try:
        model.gradient(images, labels, _all_logits)
    finally:
        hook.remove()
    grid = model.asked(images, products).reshape(-1, 1, rows, columns)
    fine = F.interpolate(grid, scale_factor=patch_size(network), mode="bilinear", align_corners=False)
    grid = F.avg_pool2d(fine, patch_size(network))[:, 0]
    low, high = grid.amin((1, 2), keepdim=True), grid.amax((1, 2), keepdim=True)
    return (grid - low) / (high - low + _TINY)


def _all_logits(logits: Logits, labels: Labels) -> PerSample:
    result: torch.Tensor = logits.sum(1)
    return result
