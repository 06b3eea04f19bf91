"""Other gradients for the same model: what an attack may follow where the model's own leads nowhere."""

import copy

import torch
from torch import nn

from robustbench_twicing.attention.paths import MethodAttention
from robustbench_twicing.inside.watch import transformer_in
from robustbench_twicing.models.classifier import Classifier
from robustbench_twicing.spec.methods import SOFTMAX


class _PlainBackward(nn.Module):
    """Forward of the method, backward of softmax attention with the same weights."""

    def __init__(self, method: MethodAttention) -> None:
        super().__init__()
        self.method, self.plain = method, MethodAttention.of(method, SOFTMAX)

    def forward(self, x: torch.Tensor, attn_mask: torch.Tensor | None = None, is_causal: bool = False) -> torch.Tensor:
        plain: torch.Tensor = self.plain(x, attn_mask, is_causal)
        result: torch.Tensor = plain + (self.method(x, attn_mask, is_causal) - plain).detach()
        return result


class _Smoothed(nn.Module):
    """The mean of the logits over noise that is always the same."""

    def __init__(self, network: nn.Module, deviation: float, draws: int = 4) -> None:
        super().__init__()
        self.network, self.deviation, self.draws = network, deviation, draws

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        total = torch.zeros(())
        for _ in range(self.draws):
            noise = torch.randn(images.shape[1:], generator=generator).to(images)
            total = total + self.network(images + self.deviation * noise)
        return total / self.draws


def with_plain_gradient(model: Classifier) -> Classifier | None:
    """The model with the gradient of A in place of that of its method's operator; None without such a method."""
    network = copy.deepcopy(model.network)
    blocks = getattr(transformer_in(network), "blocks", ())
    changed = 0
    for block in blocks:
        attention = getattr(block, "attn", None)
        if isinstance(attention, MethodAttention) and attention.mixing.needs_first:
            return None
        if isinstance(attention, MethodAttention) and attention.method != SOFTMAX:
            block.attn = _PlainBackward(attention)
            changed += 1
    return model.with_network(network) if changed else None


def smoothed(model: Classifier, eps: float) -> Classifier:
    """The model averaged over normal noise of half of eps, in the network's own units."""
    return model.with_network(_Smoothed(model.network, eps / 2 / float(model.std.mean())))
