"""Twicing attention (Abdullaev & Nguyen 2025, arXiv 2503.00687): (2A - A²)V = AV + A(V - AV), never forming A².

A is the softmax attention matrix. Twicing adds no parameters, so a twicing module has the weights, and the state-dict
keys, of the attention it was made from.
"""

import copy
from typing import Literal, cast, get_args

import torch
from jaxtyping import Float
from timm.layers import use_fused_attn
from timm.models.vision_transformer import Attention
from torch import nn
from torch.nn import functional as F

from robustbench_twicing.errors import UserError

AttentionPath = Literal["auto", "explicit", "fused"]
"""How attention is computed: with A in memory, by torch's fused kernel, or whichever `choose_path` prefers."""

Heads = Float[torch.Tensor, "batch heads tokens head_dim"]

# Every part of timm's Attention, in timm 1.0.9 to 1.0.31, that `TwicingAttention.forward` knows where to apply.
_KNOWN_PARTS = {"qkv", "q_norm", "k_norm", "attn_drop", "norm", "gate", "proj", "proj_drop"}


def explicit_twicing(
    q: Heads,
    k: Heads,
    v: Heads,
    scale: float,
    attn_mask: torch.Tensor | None = None,
    is_causal: bool = False,
    dropout: float = 0.0,
) -> Heads:
    """(2A - A²)V with A in memory, as 2AV - A(AV): the cheapest exact form once gradients are needed on a CPU.

    `attn_mask` as in `torch.nn.functional.scaled_dot_product_attention`: boolean (True takes part) or added to the
    scores. `dropout` is a probability; the same dropped A is used in both products, as in the authors' code.
    """
    scores = (q * scale) @ k.transpose(-2, -1)
    if is_causal:
        allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~allowed, float("-inf"))
    elif attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, float("-inf"))
    elif attn_mask is not None:
        scores = scores + attn_mask
    attn = F.dropout(scores.softmax(dim=-1), dropout, training=dropout > 0)
    av = attn @ v
    flat = av.flatten(0, 1)
    return torch.baddbmm(flat, attn.flatten(0, 1), flat, beta=2, alpha=-1).view_as(av)


def fused_twicing(
    q: Heads,
    k: Heads,
    v: Heads,
    scale: float,
    attn_mask: torch.Tensor | None = None,
    is_causal: bool = False,
) -> Heads:
    """(2A - A²)V by two calls of torch's fused attention, on V and on V - AV, so that A is never in memory.

    It has no dropout: two calls cannot share one dropped A.
    """

    def attend(values: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, values, attn_mask=attn_mask, is_causal=is_causal, scale=scale)

    av = attend(v)
    return av + attend(v - av)


def choose_path(path: AttentionPath, device: torch.device, dropout: float) -> Literal["explicit", "fused"]:
    """What a twicing module computes with: `path` itself unless it is "auto" or cannot do what is asked.

    On a CPU at 197 tokens A fits into the cache and the explicit path wins (1.05-1.2 times the time of plain attention
    against 1.7-1.9 for the fused one); elsewhere the fused one saves memory. Dropout needs A.
    """
    if dropout > 0:
        return "explicit"
    if path == "auto":
        return "explicit" if device.type == "cpu" else "fused"
    return path


class TwicingAttention(Attention):
    """timm's multi-head self-attention with A replaced by 2A - A². Made with `TwicingAttention.of`."""

    path: AttentionPath = "auto"

    @classmethod
    def of(cls, attention: Attention) -> "TwicingAttention":
        """A twicing module that takes over the parts of `attention`, with their weights, dtype, device and hooks.

        Raises `UserError` if `attention` is no plain timm `Attention`, or has a part this module does not know.
        """
        if type(attention) is not Attention:
            raise UserError(
                f"{type(attention).__module__}.{type(attention).__name__} is not timm's Attention.",
                "Twicing replaces timm.layers.Attention only, as ViT, DeiT and DeiT III have it.",
            )
        unknown = sorted(name for name, _ in attention.named_children() if name not in _KNOWN_PARTS)
        if unknown:
            raise UserError(
                f"This version of timm's Attention has parts unknown to twicing: {', '.join(unknown)}.",
                "Install a version of timm that the README names.",
            )
        twicing = copy.copy(attention)
        twicing.__class__ = cls
        assert isinstance(twicing, cls)
        return twicing

    def forward(self, x: torch.Tensor, attn_mask: torch.Tensor | None = None, is_causal: bool = False) -> torch.Tensor:
        """(batch, tokens, width) to the same, as timm's forward but for the product with V."""
        batch, tokens, _ = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        q, k = self.q_norm(q), self.k_norm(k)

        dropout = self.attn_drop.p if self.training else 0.0
        if choose_path(self.path, x.device, dropout) == "fused":
            mixed = fused_twicing(q, k, v, self.scale, attn_mask, is_causal)
        else:
            mixed = explicit_twicing(q, k, v, self.scale, attn_mask, is_causal, dropout)

        mixed = mixed.transpose(1, 2).reshape(batch, tokens, -1)
        # timm 1.0.9 has neither; later versions normalise, then gate, before the projection.
        norm, gate = getattr(self, "norm", None), getattr(self, "gate", None)
        if norm is not None:
            mixed = norm(mixed)
        if gate is not None:
            mixed = mixed * gate(x).sigmoid()
        projected: torch.Tensor = self.proj_drop(self.proj(mixed))
        return projected


def set_attention_path(model: nn.Module, path: str) -> None:
    """Make every attention of `model`, plain or twicing, use one path, so that two models differ in nothing else.

    Raises `UserError` for an unknown path.
    """
    if path not in get_args(AttentionPath):
        raise UserError(f"Unknown attention path {path!r}.", f"Available: {', '.join(get_args(AttentionPath))}.")
    for module in model.modules():
        if isinstance(module, TwicingAttention):
            module.path = cast(AttentionPath, path)
        elif isinstance(module, Attention):
            # timm's own switch, which it declares Final.
            setattr(module, "fused_attn", bool(use_fused_attn()) if path == "auto" else path == "fused")  # noqa: B010
