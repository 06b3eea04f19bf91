"""Each method of attention along two paths, and for the tokens that are read.

A is the softmax attention matrix. Twicing of strength s replaces it by A + s(A - A²), which is never formed:
(A + s(A - A²))V = (1 + s)AV - sA(AV) = AV + sA(V - AV). Softmax attention is s = 0. For those two the products, and on
the explicit path the gradient, are written out here; any other method is computed by its formula in the table. No
method adds parameters, so a module has the weights, and the state-dict keys, of the attention it was made from.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast, get_args

import torch
from timm.layers import use_fused_attn
from timm.models.vision_transformer import Attention
from torch import nn
from torch.nn import functional as F

from robustbench_twicing.attention.methods import Inputs, Mixing, mixing_of, settled_method
from robustbench_twicing.attention.packed import (
    Heads,
    Mask,
    OnScores,
    Rows,
    Weights,
    by_strength,
    packed_attention,
    weights_of,
)
from robustbench_twicing.errors import UserError, unknown_name
from robustbench_twicing.spec.methods import SOFTMAX, Method

AttentionPath = Literal["auto", "explicit", "fused", "triton"]
"""How attention is computed: with A in memory, by torch's fused kernel, by our kernel in Triton where that can (and
else by torch's), or whichever of the first two `choose_path` prefers."""

# Every part of timm's Attention, in timm 1.0.9 to 1.0.31, that `MethodAttention.forward` knows where to apply.
_KNOWN_PARTS = {"qkv", "q_norm", "k_norm", "attn_drop", "norm", "gate", "proj", "proj_drop"}


def explicit_attention(
    q: Heads,
    k: Heads,
    v: Heads,
    scale: float,
    mixing: Mixing,
    read: int | None = None,
    mask: Mask = None,
    first_v: Heads | None = None,
) -> Rows:
    """What the method mixes, with A in memory; of its first `read` tokens only, if `read` is given.

    No `mask` together with `read`. `first_v` are the values of the network's first block; left out, this is the first
    block.
    """
    inputs = _Explicit(q, k, v, v if first_v is None else first_v, partial(weights_of, k, scale, mask=mask))
    return _mixed_explicitly(inputs, mixing, read)


def dropped_attention(
    q: Heads,
    k: Heads,
    v: Heads,
    scale: float,
    mixing: Mixing,
    dropout: float,
    mask: Mask = None,
    first_v: Heads | None = None,
) -> Heads:
    """`explicit_attention` in training, with `dropout`, a probability.

    The same dropped A is used in all products, as in the authors' code.
    """
    weights = partial(weights_of, k, scale, mask=mask, dropout=dropout)
    return _mixed_explicitly(_Explicit(q, k, v, v if first_v is None else first_v, weights), mixing, None)


def fused_attention(
    q: Heads,
    k: Heads,
    v: Heads,
    scale: float,
    mixing: Mixing,
    read: int | None = None,
    mask: Mask = None,
    first_v: Heads | None = None,
) -> Rows:
    """What the method mixes, A being applied by torch's fused attention, and never in memory.

    Once for softmax, twice for twicing, on V and on V - AV. Of its first `read` tokens only, if `read` is given; not
    together with a mask. It has no dropout: two calls cannot share one dropped A. `first_v` as in `explicit_attention`.
    """
    is_causal = isinstance(mask, str)
    attn_mask = None if isinstance(mask, str) else mask

    def attend(queries: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(queries, k, values, attn_mask=attn_mask, is_causal=is_causal, scale=scale)

    strength = mixing.strength
    if strength is None:
        return _by_formula(mixing, _Fused(q, k, v, v if first_v is None else first_v, attend), read)
    rows = q if read is None else q[:, :, :read]
    if not strength:
        return attend(rows, v)
    av = attend(q, v)
    return torch.add(av[:, :, :read], attend(rows, v - av), alpha=strength)


def formula_attention(
    q: Heads, k: Heads, v: Heads, scale: float, mixing: Mixing, first_v: Heads | None = None
) -> Heads:
    """What the method mixes, by its formula in the table and no faster way: for the probe and for tests."""
    return explicit_attention(q, k, v, scale, mixing._replace(strengths=()), first_v=first_v)


class FirstValues:
    """Hands the first block's values to the blocks behind it, within one forward of the network."""

    def __init__(self) -> None:
        self.values: torch.Tensor | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "FirstValues":
        return FirstValues()


@dataclass(frozen=True)
class _Fused:
    """A formula's inputs where A is never in memory."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    first_v: torch.Tensor
    apply: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

    def attend(self, values: torch.Tensor, q: torch.Tensor | None = None) -> torch.Tensor:
        return self.apply(self.q if q is None else q, values)


class _Explicit:
    """A formula's inputs where A is in memory, once: products with it share what dropout dropped."""

    def __init__(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, first_v: torch.Tensor, weights: Weights
    ) -> None:
        self.q, self.k, self.v, self.first_v = q, k, v, first_v
        self.weights = weights
        self._attn: torch.Tensor | None = None

    def attend(self, values: torch.Tensor, q: torch.Tensor | None = None) -> torch.Tensor:
        if q is not None:
            return self.weights(q) @ values
        if self._attn is None:
            self._attn = self.weights(self.q)
        return self._attn @ values


def _mixed_explicitly(inputs: _Explicit, mixing: Mixing, read: int | None) -> torch.Tensor:
    if mixing.strength is None:
        return _by_formula(mixing, inputs, read)
    return by_strength(mixing.strength, inputs.q, inputs.v, inputs.weights, read)


def _by_formula(mixing: Mixing, inputs: Inputs, read: int | None) -> torch.Tensor:
    mixed: torch.Tensor = mixing.formula(inputs, *mixing.numbers)
    return mixed[:, :, :read]


def choose_path(path: AttentionPath, device: torch.device, dropout: float) -> Literal["explicit", "fused", "triton"]:
    """What a module computes with: `path` itself unless it is "auto" or cannot do what is asked.

    On a CPU the explicit path is the faster one for twicing at 197 tokens (benchmarks/attention.csv); elsewhere the
    fused one saves memory. Dropout needs A.
    """
    if dropout > 0:
        return "explicit"
    if path == "auto":
        return "explicit" if device.type == "cpu" else "fused"
    return path


def on_chip() -> Any:
    """The module with the Triton kernel, imported when it is wanted. Raises `UserError` without triton."""
    try:
        from robustbench_twicing.attention import on_chip as kernel
    except ImportError as error:
        raise UserError(
            f"The attention path triton needs the package triton: {error}.",
            "Install triton, which comes with torch for CUDA on Linux, or leave --attention-path away.",
        ) from error
    return kernel


class MethodAttention(Attention):
    """timm's multi-head self-attention with a choice of method, path and tokens. Made with `MethodAttention.of`."""

    method: Method = SOFTMAX
    mixing: Mixing = mixing_of(SOFTMAX)
    path: AttentionPath = "auto"
    read: int | None = None
    """In eval mode and without a mask, only the first `read` tokens come out; None: all."""
    first: FirstValues | None = None
    """Shared by the blocks of a network of which some need the first one's values."""
    on_scores: OnScores = None
    """If given, A is in memory on every path, and no dropout."""
    place: Literal["first", "between", "last"] = "between"
    """Of this block among those: the first fills `first`, the last one that needs it empties it."""

    @classmethod
    def of(cls, attention: Attention, method: Method) -> "MethodAttention":
        """A module that mixes by `method` and takes over the parts of `attention`: weights, dtype, device and hooks.

        Raises `UserError` if `attention` is neither a plain timm `Attention` nor one of ours, or has a part that this
        module does not know, and for a method that the table does not have.
        """
        mixing = mixing_of(method)
        if type(attention) not in (Attention, MethodAttention):
            raise UserError(
                f"{type(attention).__module__}.{type(attention).__name__} is not timm's Attention.",
                "A method replaces timm.layers.Attention only, as ViT, DeiT and DeiT III have it.",
            )
        unknown = sorted(name for name, _ in attention.named_children() if name not in _KNOWN_PARTS)
        if unknown:
            raise UserError(
                f"This version of timm's Attention has parts unknown to us: {', '.join(unknown)}.",
                "Install a version of timm that the README names.",
            )
        ours = copy.copy(attention)
        ours.__class__ = cls
        assert isinstance(ours, MethodAttention)
        ours.method, ours.mixing = settled_method(method), mixing
        return ours

    def forward(self, x: torch.Tensor, attn_mask: torch.Tensor | None = None, is_causal: bool = False) -> torch.Tensor:
        """(batch, tokens, width) to the same, or to (batch, read, width), as timm's forward but for the mixing."""
        batch, tokens, _ = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, self.head_dim)
        plain_q, plain_k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        q, k = self.q_norm(plain_q), self.k_norm(plain_k)
        first_v = self._first_values(v)

        dropout = self.attn_drop.p if self.training else 0.0
        mixing, plain = self.mixing, q is plain_q and k is plain_k and self.mixing.strength is not None
        mask: Mask = "causal" if is_causal else attn_mask
        read = None if self.training or mask is not None else self.read
        packs, path = plain and read is None and mask is None, choose_path(self.path, x.device, dropout)
        if self.on_scores is not None:
            weights = partial(weights_of, k, self.scale, mask=mask, on_scores=self.on_scores)
            inputs = _Explicit(q, k, v, v if first_v is None else first_v, weights)
            mixed = _mixed_explicitly(inputs, mixing, read).transpose(1, 2)
        elif path == "triton" and packs and on_chip().fits(qkv):
            mixed = on_chip().on_chip_attention(qkv, self.scale, cast(float, mixing.strength))
        elif path != "explicit":
            mixed = fused_attention(q, k, v, self.scale, mixing, read, mask, first_v).transpose(1, 2)
        elif dropout > 0:
            mixed = dropped_attention(q, k, v, self.scale, mixing, dropout, mask, first_v).transpose(1, 2)
        elif packs:
            mixed = packed_attention(qkv, self.scale, cast(float, mixing.strength))
        else:
            mixed = explicit_attention(q, k, v, self.scale, mixing, read, mask, first_v).transpose(1, 2)

        mixed = mixed.reshape(batch, mixed.shape[1], -1)
        # timm 1.0.9 has neither; later versions normalise, then gate, before the projection.
        norm, gate = getattr(self, "norm", None), getattr(self, "gate", None)
        if norm is not None:
            mixed = norm(mixed)
        if gate is not None:
            mixed = mixed * gate(x[:, : mixed.shape[1]]).sigmoid()
        projected: torch.Tensor = self.proj_drop(self.proj(mixed))
        return projected

    def _first_values(self, v: torch.Tensor) -> torch.Tensor | None:
        """What the formula reads as `first_v`; None in the first block, and where no block reads it."""
        if self.first is None:
            return None
        if self.place == "first":
            self.first.values = v
            return None
        if not self.mixing.needs_first:
            return None
        values = self.first.values
        if values is None or values.shape != v.shape:
            raise RuntimeError("A block that needs the first block's values was run without it.")
        if self.place == "last":
            self.first.values = None  # not kept until the next batch
        return values


def set_attention_path(model: nn.Module, path: str) -> None:
    """Make every attention of `model`, timm's and ours, use one path, so that two models differ in nothing else.

    Raises `UserError` for an unknown path, and for `triton` where it is not installed.
    """
    if path not in get_args(AttentionPath):
        raise unknown_name("attention path", path, get_args(AttentionPath))
    if path == "triton":
        on_chip()
    for module in model.modules():
        if isinstance(module, MethodAttention):
            module.path = cast(AttentionPath, path)
        elif isinstance(module, Attention):
            # timm's own switch, which it declares Final.
            setattr(module, "fused_attn", bool(use_fused_attn()) if path == "auto" else path != "explicit")  # noqa: B010
