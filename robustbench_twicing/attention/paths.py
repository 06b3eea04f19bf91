"""Each method of attention along two paths, and for the tokens that are read.

A is the softmax attention matrix. Twicing of strength s replaces it by A + s(A - A²), which is never formed:
(A + s(A - A²))V = (1 + s)AV - sA(AV) = AV + sA(V - AV). Softmax attention is s = 0. For those two the products, and on
the explicit path the gradient, are written out here; any other method is computed by its formula in the table. No
method adds parameters, so a module has the weights, and the state-dict keys, of the attention it was made from.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast, get_args

import torch
from jaxtyping import Float
from timm.layers import use_fused_attn
from timm.models.vision_transformer import Attention
from torch import nn
from torch.nn import functional as F

from robustbench_twicing.attention.methods import Inputs, Mixing, mixing_of, settled_method
from robustbench_twicing.errors import UserError, unknown_name
from robustbench_twicing.spec.methods import SOFTMAX, Method

AttentionPath = Literal["auto", "explicit", "fused"]
"""How attention is computed: with A in memory, by torch's fused kernel, or whichever `choose_path` prefers."""

Heads = Float[torch.Tensor, "batch heads tokens head_dim"]
Packed = Float[torch.Tensor, "batch tokens 3 heads head_dim"]
"""Queries, keys and values of all heads, as one linear layer makes them."""
Rows = Float[torch.Tensor, "batch heads rows head_dim"]
"""For each head, what comes out for the tokens that are read, or for all."""

Mask = torch.Tensor | Literal["causal"] | None
"""Which tokens each token may look at, as in `torch.nn.functional.scaled_dot_product_attention`: boolean (True takes
part) or added to the scores; "causal": itself and those before it."""

_Weights = Callable[[torch.Tensor], torch.Tensor]
"""Queries to their rows of A."""

# Every part of timm's Attention, in timm 1.0.9 to 1.0.31, that `MethodAttention.forward` knows where to apply.
_KNOWN_PARTS = {"qkv", "q_norm", "k_norm", "attn_drop", "norm", "gate", "proj", "proj_drop"}


def packed_attention(qkv: Packed, scale: float, strength: float) -> Float[torch.Tensor, "batch tokens heads head_dim"]:
    """(A + strength (A - A²))V with A in memory and its gradient written out: the explicit path's fast form."""
    if qkv.dtype == torch.bfloat16 and qkv.device.type == "cpu" and qkv.shape[1] <= _SHORT:
        return packed_attention(qkv.float(), scale, strength).to(qkv.dtype)
    if torch.is_grad_enabled() and qkv.requires_grad:
        return cast(torch.Tensor, _PackedAttention.apply(qkv, scale, strength))
    return _forward(qkv, scale, strength)


def explicit_attention(
    q: Heads,
    k: Heads,
    v: Heads,
    scale: float,
    mixing: Mixing,
    read: int | None = None,
    mask: Mask = None,
    dropout: float = 0.0,
    first_v: Heads | None = None,
) -> Rows:
    """What the method mixes, with A in memory; of its first `read` tokens only, if `read` is given.

    No `mask` together with `read`. `dropout` is a probability; the same dropped A is used in all products, as in the
    authors' code. `first_v` are the values of the network's first block; left out, this is the first block.
    """
    weights = partial(_weights, k, scale, mask=mask, dropout=dropout)
    if mixing.strength is None:
        return _by_formula(mixing, _Explicit(q, k, v, v if first_v is None else first_v, weights), read)
    return _by_strength(mixing.strength, q, v, weights, read)


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
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, first_v: torch.Tensor, weights: _Weights
    ) -> None:
        self.q, self.k, self.v, self.first_v = q, k, v, first_v
        self._weights = weights
        self._attn: torch.Tensor | None = None

    def attend(self, values: torch.Tensor, q: torch.Tensor | None = None) -> torch.Tensor:
        if q is not None:
            return self._weights(q) @ values
        if self._attn is None:
            self._attn = self._weights(self.q)
        return self._attn @ values


def _by_formula(mixing: Mixing, inputs: Inputs, read: int | None) -> torch.Tensor:
    mixed: torch.Tensor = mixing.formula(inputs, *mixing.numbers)
    return mixed[:, :, :read]


def _by_strength(strength: float, q: Heads, v: Heads, weights: _Weights, read: int | None = None) -> torch.Tensor:
    if read is not None:
        rows = weights(q[:, :, :read])
        # (a + s(a - aA))V for the rows a: the product AV is never made, and the gradient's part for A has rank `read`.
        return (torch.sub((1 + strength) * rows, rows @ weights(q), alpha=strength) if strength else rows) @ v
    attn = weights(q)
    av = attn @ v
    return torch.sub((1 + strength) * av, attn @ av, alpha=strength) if strength else av


def _weights(k: Heads, scale: float, q: Rows, mask: Mask = None, dropout: float = 0.0) -> torch.Tensor:
    """A (batch, heads, rows, tokens) of the queries `q`."""
    scores = (q * scale) @ k.transpose(-2, -1)
    if isinstance(mask, str):
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, float("-inf"))
    elif mask is not None:
        scores = scores + mask
    return F.dropout(scores.softmax(dim=-1), dropout, training=dropout > 0)


def choose_path(path: AttentionPath, device: torch.device, dropout: float) -> Literal["explicit", "fused"]:
    """What a module computes with: `path` itself unless it is "auto" or cannot do what is asked.

    On a CPU the explicit path is the faster one for twicing at 197 tokens (benchmarks/attention.csv); elsewhere the
    fused one saves memory. Dropout needs A.
    """
    if dropout > 0:
        return "explicit"
    if path == "auto":
        return "explicit" if device.type == "cpu" else "fused"
    return path


class MethodAttention(Attention):
    """timm's multi-head self-attention with a choice of method, path and tokens. Made with `MethodAttention.of`."""

    method: Method = SOFTMAX
    mixing: Mixing = mixing_of(SOFTMAX)
    path: AttentionPath = "auto"
    read: int | None = None
    """In eval mode and without a mask, only the first `read` tokens come out; None: all."""
    first: FirstValues | None = None
    """Shared by the blocks of a network of which some need the first one's values."""
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
        if choose_path(self.path, x.device, dropout) == "fused":
            mixed = fused_attention(q, k, v, self.scale, mixing, read, mask, first_v).transpose(1, 2)
        elif plain and read is None and mask is None and dropout == 0:
            mixed = packed_attention(qkv, self.scale, cast(float, mixing.strength))
        else:
            mixed = explicit_attention(q, k, v, self.scale, mixing, read, mask, dropout, first_v).transpose(1, 2)

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

    Raises `UserError` for an unknown path.
    """
    if path not in get_args(AttentionPath):
        raise unknown_name("attention path", path, get_args(AttentionPath))
    for module in model.modules():
        if isinstance(module, MethodAttention):
            module.path = cast(AttentionPath, path)
        elif isinstance(module, Attention):
            # timm's own switch, which it declares Final.
            setattr(module, "fused_attn", bool(use_fused_attn()) if path == "auto" else path == "fused")  # noqa: B010


# --- the explicit path, with its gradient ------------------------------------------------------------------------
#
# autograd keeps and sums more than is needed: at 197 tokens each extra pass over A costs a tenth of a matrix product,
# and a third of what autograd takes is such passes (benchmarks/attention.csv). Here S = scale·QKᵀ, A = softmax(S),
# U = AV, and O = (1 + s)U - sAU with the strength s, which is 0 for softmax attention. With the gradient G of O:
#   D = (1 + s)G - sAᵀG                  the gradient of U
#   dA = DVᵀ - sGUᵀ;                     dS = A∘(dA - rows of (dA∘A) summed)
#   dQ = scale·dS K;   dK = scale·dSᵀ Q;   dV = AᵀD

_SHORT = 32
"""Tokens up to which a CPU computes attention in float32 whatever the network's precision: a row of A fills no vector
of bfloat16, which costs softmax and its gradient 2 and 10 times the time, and the products gain nothing."""

_CPU_CHUNK = 2**19
"""Attention weights to work on at a time on a CPU (2 MiB in float32), so that the steps meet them in the cache."""


class _PackedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: torch.Tensor, scale: float, strength: float) -> torch.Tensor:
        batch, tokens, _, heads, head_dim = qkv.shape
        attn = qkv.new_empty(batch, heads, tokens, tokens)
        av = qkv.new_empty(batch if strength else 0, heads, tokens, head_dim)
        ctx.save_for_backward(qkv, attn, av)
        ctx.scale, ctx.strength = scale, strength
        return _forward(qkv, scale, strength, attn, av)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        qkv, attn, av = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True: leave it to autograd
            q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
            mixed = _by_strength(ctx.strength, q, v, partial(_weights, k, ctx.scale)).transpose(1, 2)
            return torch.autograd.grad(mixed, qkv, grad, create_graph=True)[0], None, None
        return _backward(grad, qkv, attn, av, ctx.scale, ctx.strength), None, None


def _forward(
    qkv: torch.Tensor,
    scale: float,
    strength: float,
    keep_attn: torch.Tensor | None = None,
    keep_av: torch.Tensor | None = None,
) -> torch.Tensor:
    """The output (batch, tokens, heads, head_dim). A is kept in `keep_attn`, AV in `keep_av` unless `strength` is 0."""
    batch, tokens, _, heads, head_dim = qkv.shape
    out = qkv.new_empty(batch, tokens, heads, head_dim)
    for part in _chunks(qkv):
        q, k, v = _unpack(qkv[part])
        scores = qkv.new_empty(len(q), tokens, tokens).baddbmm_(q, k.transpose(1, 2), beta=0, alpha=scale)
        attn = torch.softmax(scores, dim=-1, out=None if keep_attn is None else keep_attn[part].flatten(0, 1))
        if strength:
            av = torch.bmm(attn, v, out=None if keep_av is None else keep_av[part].flatten(0, 1))
            mixed = torch.baddbmm(av, attn, av, beta=1 + strength, alpha=-strength)
        else:
            mixed = torch.bmm(attn, v)
        out[part] = mixed.unflatten(0, (-1, heads)).transpose(1, 2)
    return out


def _backward(
    grad: torch.Tensor, qkv: torch.Tensor, attn: torch.Tensor, av: torch.Tensor, scale: float, strength: float
) -> torch.Tensor:
    """The gradient (batch, tokens, 3, heads, head_dim) of `qkv`, from that of the output, A and AV."""
    heads = qkv.shape[3]
    packed = torch.empty_like(qkv)
    for part in _chunks(qkv):
        q, k, v = _unpack(qkv[part])
        a, g = attn[part].flatten(0, 1), grad[part].transpose(1, 2).flatten(0, 1)
        d = torch.baddbmm(g, a.transpose(1, 2), g, beta=1 + strength, alpha=-strength) if strength else g
        grad_attn = torch.bmm(d, v.transpose(1, 2))
        if strength:
            grad_attn.baddbmm_(g, av[part].flatten(0, 1).transpose(1, 2), alpha=-strength)
        grad_scores = torch.ops.aten._softmax_backward_data(grad_attn, a, -1, a.dtype)
        grads = q.new_empty(3, *q.shape)
        grads[0].baddbmm_(grad_scores, k, beta=0, alpha=scale)
        grads[1].baddbmm_(grad_scores.transpose(1, 2), q, beta=0, alpha=scale)
        torch.bmm(a.transpose(1, 2), d, out=grads[2])
        packed[part] = grads.unflatten(1, (-1, heads)).permute(1, 3, 0, 2, 4)
    return packed


def _chunks(qkv: torch.Tensor) -> Iterator[slice]:
    """The batch in pieces whose attention weights stay in a CPU's cache; in one piece elsewhere, and compiled.

    A loop over pieces would be compiled for one size of the batch.
    """
    if qkv.device.type != "cpu" or torch.compiler.is_compiling():
        return iter((slice(None),))
    batch, tokens, _, heads, _ = qkv.shape
    size = max(1, _CPU_CHUNK // (heads * tokens**2))
    return (slice(start, start + size) for start in range(0, batch, size))


def _unpack(qkv: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """q, k and v as (batch · heads, tokens, head_dim), each in one piece of memory."""
    return qkv.permute(2, 0, 3, 1, 4).flatten(1, 2).contiguous().unbind(0)
