"""Attention with A in memory: the products of softmax and twicing, and their gradient written out.

`paths` chooses it; what has a mask, drops weights or is another method is computed there.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch.nn import functional as F

Heads = Float[torch.Tensor, "batch heads tokens head_dim"]
Packed = Float[torch.Tensor, "batch tokens 3 heads head_dim"]
"""Queries, keys and values of all heads, as one linear layer makes them."""
Rows = Float[torch.Tensor, "batch heads rows head_dim"]
"""For each head, what comes out for the tokens that are read, or for all."""

Mask = torch.Tensor | Literal["causal"] | None
"""Which tokens each token may look at, as in `torch.nn.functional.scaled_dot_product_attention`: boolean (True takes
part) or added to the scores; "causal": itself and those before it."""

OnScores = Callable[[torch.Tensor], torch.Tensor] | None
"""Is given scores (batch, heads, rows, tokens) and returns what the softmax is taken of, such as the same with another
gradient; None: the scores themselves."""

Weights = Callable[[torch.Tensor], torch.Tensor]
"""Queries to their rows of A."""

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


def packed_attention(qkv: Packed, scale: float, strength: float) -> Float[torch.Tensor, "batch tokens heads head_dim"]:
    """(A + strength (A - A²))V with A in memory and its gradient written out: the explicit path's fast form."""
    if qkv.dtype == torch.bfloat16 and qkv.device.type == "cpu" and qkv.shape[1] <= _SHORT:
        return packed_attention(qkv.float(), scale, strength).to(qkv.dtype)
    if torch.is_grad_enabled() and qkv.requires_grad:
        return cast(torch.Tensor, _PackedAttention.apply(qkv, scale, strength))
    return _forward(qkv, scale, strength)


def by_strength(strength: float, q: Heads, v: Heads, weights: Weights, read: int | None = None) -> torch.Tensor:
    """(A + strength (A - A²))V in plain products, of the first `read` tokens only, if `read` is given."""
    if read is not None:
        rows = weights(q[:, :, :read])
        # (a + s(a - aA))V for the rows a: the product AV is never made, and the gradient's part for A has rank `read`.
        return (torch.sub((1 + strength) * rows, rows @ weights(q), alpha=strength) if strength else rows) @ v
    attn = weights(q)
    av = attn @ v
    return torch.sub((1 + strength) * av, attn @ av, alpha=strength) if strength else av


def weights_of(
    k: Heads, scale: float, q: Rows, mask: Mask = None, dropout: float = 0.0, on_scores: OnScores = None
) -> torch.Tensor:
    """A (batch, heads, rows, tokens) of the queries `q`: the softmax of their scores, which `on_scores` may change."""
    scores = (q * scale) @ k.transpose(-2, -1)
    if on_scores is not None:
        scores = on_scores(scores)
    if isinstance(mask, str):
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, float("-inf"))
    elif mask is not None:
        scores = scores + mask
    return F.dropout(scores.softmax(dim=-1), dropout, training=dropout > 0)


class _PackedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: torch.Tensor, scale: float, strength: float) -> torch.Tensor:
        mixed, attn, av = attention_kept(qkv, scale, strength)
        ctx.save_for_backward(qkv, attn, av)
        ctx.scale, ctx.strength = scale, strength
        return mixed

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        qkv, attn, av = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True: leave it to autograd
            q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
            mixed = by_strength(ctx.strength, q, v, partial(weights_of, k, ctx.scale)).transpose(1, 2)
            return torch.autograd.grad(mixed, qkv, grad, create_graph=True)[0], None, None
        device = qkv.device.type
        if not torch.is_autocast_enabled(device):
            return attention_gradient(grad, qkv, attn, av, ctx.scale, ctx.strength), None, None
        with torch.autocast(device, enabled=False):  # its products would be of other precisions than their sums
            return attention_gradient(grad, qkv, attn, av, ctx.scale, ctx.strength), None, None


def attention_kept(
    qkv: torch.Tensor, scale: float, strength: float, keep: bool = True
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As `packed_attention`, with A and AV for `attention_gradient`; without `keep` with neither. No gradient."""
    if not keep:
        return _forward(qkv, scale, strength), qkv, qkv
    batch, tokens, _, heads, head_dim = qkv.shape
    attn = qkv.new_empty(batch, heads, tokens, tokens)
    av = qkv.new_empty(batch if strength else 0, heads, tokens, head_dim)
    return _forward(qkv, scale, strength, attn, av), attn, av


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


def attention_gradient(
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
