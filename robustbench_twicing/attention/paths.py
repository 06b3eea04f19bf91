"""Softmax attention AV and twicing attention (2A - A²)V, each along two paths, and for the tokens that are read.

A is the softmax attention matrix; twicing (Abdullaev & Nguyen 2025, arXiv 2503.00687) replaces it by 2A - A², which is
never formed: (2A - A²)V = 2AV - A(AV) = AV + A(V - AV). Twicing adds no parameters, so a twicing module has the
weights, and the state-dict keys, of the attention it was made from.
"""

import copy
from collections.abc import Iterator
from typing import Any, ClassVar, Literal, cast, get_args

import torch
from jaxtyping import Float
from timm.layers import use_fused_attn
from timm.models.vision_transformer import Attention
from torch import nn
from torch.nn import functional as F

from robustbench_twicing.errors import UserError, unknown_name

AttentionPath = Literal["auto", "explicit", "fused"]
"""How attention is computed: with A in memory, by torch's fused kernel, or whichever `choose_path` prefers."""

Heads = Float[torch.Tensor, "batch heads tokens head_dim"]
Packed = Float[torch.Tensor, "batch tokens 3 heads head_dim"]
"""Queries, keys and values of all heads, as one linear layer makes them."""
Rows = Float[torch.Tensor, "batch heads rows head_dim"]
"""For each head, what comes out for the tokens that are read, or for all."""

# Every part of timm's Attention, in timm 1.0.9 to 1.0.31, that `SoftmaxAttention.forward` knows where to apply.
_KNOWN_PARTS = {"qkv", "q_norm", "k_norm", "attn_drop", "norm", "gate", "proj", "proj_drop"}


def packed_attention(qkv: Packed, scale: float, twicing: bool) -> Float[torch.Tensor, "batch tokens heads head_dim"]:
    """AV, or (2A - A²)V if `twicing`, with A in memory and its gradient written out: the explicit path's fast form."""
    if qkv.dtype == torch.bfloat16 and qkv.device.type == "cpu" and qkv.shape[1] <= _SHORT:
        return packed_attention(qkv.float(), scale, twicing).to(qkv.dtype)
    if torch.is_grad_enabled() and qkv.requires_grad:
        return cast(torch.Tensor, _PackedAttention.apply(qkv, scale, twicing))
    return _forward(qkv, scale, twicing)


def explicit_attention(
    q: Heads,
    k: Heads,
    v: Heads,
    scale: float,
    twicing: bool,
    read: int | None = None,
    attn_mask: torch.Tensor | None = None,
    is_causal: bool = False,
    dropout: float = 0.0,
) -> Rows:
    """AV, or (2A - A²)V if `twicing`, with A in memory; of its first `read` tokens only, if `read` is given.

    `attn_mask` as in `torch.nn.functional.scaled_dot_product_attention`: boolean (True takes part) or added to the
    scores; not together with `read`. `dropout` is a probability; the same dropped A is used in both products, as in
    the authors' code.
    """
    scores = (q * scale) @ k.transpose(-2, -1) if twicing or read is None else None
    if read is not None:
        rows = ((q[:, :, :read] * scale) @ k.transpose(-2, -1)).softmax(dim=-1)
        # (2a - aA)V for the rows a: the product AV is never made, and the gradient's part for A has rank `read`.
        return (rows if scores is None else 2 * rows - rows @ scores.softmax(dim=-1)) @ v
    assert scores is not None
    if is_causal:
        allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~allowed, float("-inf"))
    elif attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, float("-inf"))
    elif attn_mask is not None:
        scores = scores + attn_mask
    attn = F.dropout(scores.softmax(dim=-1), dropout, training=dropout > 0)
    av = attn @ v
    return 2 * av - attn @ av if twicing else av


def fused_attention(
    q: Heads,
    k: Heads,
    v: Heads,
    scale: float,
    twicing: bool,
    read: int | None = None,
    attn_mask: torch.Tensor | None = None,
    is_causal: bool = False,
) -> Rows:
    """AV by one call of torch's fused attention, or (2A - A²)V by two, on V and on V - AV: A is never in memory.

    Of its first `read` tokens only, if `read` is given; not together with a mask. It has no dropout: two calls cannot
    share one dropped A.
    """

    def attend(queries: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(queries, k, values, attn_mask=attn_mask, is_causal=is_causal, scale=scale)

    rows = q if read is None else q[:, :, :read]
    if not twicing:
        return attend(rows, v)
    av = attend(q, v)
    return av[:, :, :read] + attend(rows, v - av)


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


class SoftmaxAttention(Attention):
    """timm's multi-head self-attention with a choice of path and of tokens. Made with `SoftmaxAttention.of`."""

    twicing: ClassVar[bool] = False
    path: AttentionPath = "auto"
    read: int | None = None
    """In eval mode and without a mask, only the first `read` tokens come out; None: all."""

    @classmethod
    def of(cls, attention: Attention) -> "SoftmaxAttention":
        """A module of this class that takes over the parts of `attention`: weights, dtype, device and hooks.

        Raises `UserError` if `attention` is neither a plain timm `Attention` nor our `SoftmaxAttention`, or has a part
        that this module does not know.
        """
        if type(attention) not in (Attention, SoftmaxAttention):
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
        ours = copy.copy(attention)
        ours.__class__ = cls
        assert isinstance(ours, SoftmaxAttention)
        return ours

    def forward(self, x: torch.Tensor, attn_mask: torch.Tensor | None = None, is_causal: bool = False) -> torch.Tensor:
        """(batch, tokens, width) to the same, or to (batch, read, width), as timm's forward but for the mixing."""
        batch, tokens, _ = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, self.head_dim)
        plain_q, plain_k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        q, k = self.q_norm(plain_q), self.k_norm(plain_k)

        dropout = self.attn_drop.p if self.training else 0.0
        masked = attn_mask is not None or is_causal
        read = None if self.training or masked else self.read
        if choose_path(self.path, x.device, dropout) == "fused":
            mixed = fused_attention(q, k, v, self.scale, self.twicing, read, attn_mask, is_causal).transpose(1, 2)
        elif q is plain_q and k is plain_k and read is None and not masked and dropout == 0:
            mixed = packed_attention(qkv, self.scale, self.twicing)
        else:
            mixed = explicit_attention(q, k, v, self.scale, self.twicing, read, attn_mask, is_causal, dropout)
            mixed = mixed.transpose(1, 2)

        mixed = mixed.reshape(batch, mixed.shape[1], -1)
        # timm 1.0.9 has neither; later versions normalise, then gate, before the projection.
        norm, gate = getattr(self, "norm", None), getattr(self, "gate", None)
        if norm is not None:
            mixed = norm(mixed)
        if gate is not None:
            mixed = mixed * gate(x[:, : mixed.shape[1]]).sigmoid()
        projected: torch.Tensor = self.proj_drop(self.proj(mixed))
        return projected


class TwicingAttention(SoftmaxAttention):
    """timm's multi-head self-attention with A replaced by 2A - A². Made with `TwicingAttention.of`."""

    twicing: ClassVar[bool] = True


def set_attention_path(model: nn.Module, path: str) -> None:
    """Make every attention of `model`, plain or twicing, use one path, so that two models differ in nothing else.

    Raises `UserError` for an unknown path.
    """
    if path not in get_args(AttentionPath):
        raise unknown_name("attention path", path, get_args(AttentionPath))
    for module in model.modules():
        if isinstance(module, SoftmaxAttention):
            module.path = cast(AttentionPath, path)
        elif isinstance(module, Attention):
            # timm's own switch, which it declares Final.
            setattr(module, "fused_attn", bool(use_fused_attn()) if path == "auto" else path == "fused")  # noqa: B010


# --- the explicit path, with its gradient ------------------------------------------------------------------------
#
# autograd keeps and sums more than is needed: at 197 tokens each extra pass over A costs a tenth of a matrix product,
# and a third of what autograd takes is such passes (benchmarks/attention.csv). Here S = scale·QKᵀ, A = softmax(S),
# U = AV, and O = U or, twicing, O = 2U - AU. With the gradient G of O:
#   D = G or, twicing, 2G - AᵀG          the gradient of U
#   dA = DVᵀ or, twicing, DVᵀ - GUᵀ;     dS = A∘(dA - rows of (dA∘A) summed)
#   dQ = scale·dS K;   dK = scale·dSᵀ Q;   dV = AᵀD

_SHORT = 32
"""Tokens up to which a CPU computes attention in float32 whatever the network's precision: a row of A fills no vector
of bfloat16, which costs softmax and its gradient 2 and 10 times the time, and the products gain nothing."""

_CPU_CHUNK = 2**19
"""Attention weights to work on at a time on a CPU (2 MiB in float32), so that the steps meet them in the cache."""


class _PackedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: torch.Tensor, scale: float, twicing: bool) -> torch.Tensor:
        batch, tokens, _, heads, head_dim = qkv.shape
        attn = qkv.new_empty(batch, heads, tokens, tokens)
        av = qkv.new_empty(batch if twicing else 0, heads, tokens, head_dim)
        ctx.save_for_backward(qkv, attn, av)
        ctx.scale, ctx.twicing = scale, twicing
        return _forward(qkv, scale, twicing, attn, av)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        qkv, attn, av = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True: leave it to autograd
            q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
            mixed = explicit_attention(q, k, v, ctx.scale, ctx.twicing).transpose(1, 2)
            return torch.autograd.grad(mixed, qkv, grad, create_graph=True)[0], None, None
        return _backward(grad, qkv, attn, av, ctx.scale, ctx.twicing), None, None


def _forward(
    qkv: torch.Tensor,
    scale: float,
    twicing: bool,
    keep_attn: torch.Tensor | None = None,
    keep_av: torch.Tensor | None = None,
) -> torch.Tensor:
    """The output (batch, tokens, heads, head_dim); A and, twicing, AV are written to `keep_attn` and `keep_av`."""
    batch, tokens, _, heads, head_dim = qkv.shape
    out = qkv.new_empty(batch, tokens, heads, head_dim)
    for part in _chunks(qkv):
        q, k, v = _unpack(qkv[part])
        scores = qkv.new_empty(len(q), tokens, tokens).baddbmm_(q, k.transpose(1, 2), beta=0, alpha=scale)
        attn = torch.softmax(scores, dim=-1, out=None if keep_attn is None else keep_attn[part].flatten(0, 1))
        if twicing:
            av = torch.bmm(attn, v, out=None if keep_av is None else keep_av[part].flatten(0, 1))
            mixed = torch.baddbmm(av, attn, av, beta=2, alpha=-1)
        else:
            mixed = torch.bmm(attn, v)
        out[part] = mixed.unflatten(0, (-1, heads)).transpose(1, 2)
    return out


def _backward(
    grad: torch.Tensor, qkv: torch.Tensor, attn: torch.Tensor, av: torch.Tensor, scale: float, twicing: bool
) -> torch.Tensor:
    """The gradient (batch, tokens, 3, heads, head_dim) of `qkv`, from that of the output, A and, twicing, AV."""
    heads = qkv.shape[3]
    packed = torch.empty_like(qkv)
    for part in _chunks(qkv):
        q, k, v = _unpack(qkv[part])
        a, g = attn[part].flatten(0, 1), grad[part].transpose(1, 2).flatten(0, 1)
        d = torch.baddbmm(g, a.transpose(1, 2), g, beta=2, alpha=-1) if twicing else g
        grad_attn = torch.bmm(d, v.transpose(1, 2))
        if twicing:
            grad_attn.baddbmm_(g, av[part].flatten(0, 1).transpose(1, 2), alpha=-1)
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
