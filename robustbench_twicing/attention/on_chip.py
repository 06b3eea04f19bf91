"""Twicing attention in one launch of a Triton kernel, A staying on the chip: the opt-in path `triton`.

One program computes one head. It makes A from Q and K in blocks of rows, once for each of the two products, so that
nothing of tokens x tokens is ever in memory, forward and backward. Products add up in float32; A, AV and V - AV are
rounded to the precision of `qkv` before they are multiplied, as along the fused path.

Unmeasured on a GPU, so nobody but the caller chooses it: it is tested through Triton's interpreter
(`TRITON_INTERPRET=1`) and compiled for compute capability 9.0; `benchmarks/gpu.py` will time it beside the other paths.
Importing this module imports triton.
"""

import os
from functools import partial
from typing import Any, cast

import torch
import triton
import triton.language as tl

from robustbench_twicing.attention.packed import Packed, by_strength, weights_of

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Triton computes on the CPU, in numpy. It reads the variable where a kernel is defined: when this is imported."""

_MOST_TOKENS, _MOST_HEAD_DIM = 256, 128
"""A block of rows of A, and all keys and values of a head, must fit a multiprocessor's registers and shared memory."""
_ROWS = tl.constexpr(64)
"""Rows of A at a time, forward."""
_BACK_ROWS = tl.constexpr(32)
"""Backward, where the sums for the gradients of K and V take half the registers."""
_WARPS = 8
"""With these, 197 tokens and a head_dim of 64, compiled for an H100 by triton 3.6 and 3.8: forward 198 registers and
none spilled, backward 255 and 168 bytes spilled; 72 and 88 KiB of shared memory."""
_WIDEN = tl.constexpr(INTERPRETED)
"""The interpreter multiplies bfloat16 as if it were whole numbers; widened, the products are what a GPU makes."""


def fits(qkv: Packed) -> bool:
    """Whether the kernel can compute this: device, precision, tokens and head_dim.

    Float32 only in the interpreter: on a GPU its products, not rounded to TF32, spill the registers many times over,
    and as three products in TF32 they need more shared memory than there is.
    """
    there = (torch.float32, torch.bfloat16, torch.float16) if INTERPRETED else (torch.bfloat16, torch.float16)
    on_device = INTERPRETED or qkv.device.type == "cuda"
    return on_device and qkv.dtype in there and qkv.shape[1] <= _MOST_TOKENS and qkv.shape[4] <= _MOST_HEAD_DIM


def on_chip_attention(qkv: Packed, scale: float, strength: float) -> torch.Tensor:
    """(A + strength (A - A²))V (batch, tokens, heads, head_dim), as `packed_attention`, where `fits`."""
    if torch.is_grad_enabled() and qkv.requires_grad:
        return cast(torch.Tensor, _OnChip.apply(qkv, scale, strength))
    return _launched(qkv.contiguous(), scale, strength)[0]


class _OnChip(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: torch.Tensor, scale: float, strength: float) -> torch.Tensor:
        qkv = qkv.contiguous()
        out, av = _launched(qkv, scale, strength)
        ctx.save_for_backward(qkv, av)
        ctx.scale, ctx.strength = scale, strength
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        qkv, av = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True: leave it to autograd
            q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
            mixed = by_strength(ctx.strength, q, v, partial(weights_of, k, ctx.scale)).transpose(1, 2)
            return torch.autograd.grad(mixed, qkv, grad, create_graph=True)[0], None, None
        batch, tokens, _, heads, head_dim = qkv.shape
        packed = torch.empty_like(qkv)
        if packed.numel():
            _backward[batch, heads](
                grad.contiguous(),
                qkv,
                av,
                packed,
                ctx.scale,
                ctx.strength,
                tokens,
                head_dim,
                num_warps=_WARPS,
                num_stages=1,
            )
        return packed, None, None


def _launched(qkv: torch.Tensor, scale: float, strength: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The output, and AV, which is empty where `strength` is 0."""
    batch, tokens, _, heads, head_dim = qkv.shape
    out = qkv.new_empty(batch, tokens, heads, head_dim)
    av = torch.empty_like(out) if strength else out[:0]
    if out.numel():
        _forward[batch, heads](qkv, out, av, scale, strength, tokens, head_dim, num_warps=_WARPS, num_stages=1)
    return out, av


# --- the kernels: pointers to contiguous tensors, shaped as above, and one program for each image and head ---------
# Annotations are text: triton takes a name that it does not know for a variable of the kernel's.


@triton.jit
def _forward(
    qkv: "Any",
    out: "Any",
    av: "Any",
    scale: "Any",
    STRENGTH: tl.constexpr,
    TOKENS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
) -> None:
    ALL: tl.constexpr = _padded(TOKENS)
    image, head, width = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.num_programs(1) * HEAD_DIM
    q = qkv + image * TOKENS * 3 * width + head * HEAD_DIM
    out += image * TOKENS * width + head * HEAD_DIM
    av += image * TOKENS * width + head * HEAD_DIM
    keys = _tile(q + width, 0, 3 * width, ALL, TOKENS, HEAD_DIM)
    values = _tile(q + 2 * width, 0, 3 * width, ALL, TOKENS, HEAD_DIM)
    for first in range(0, TOKENS, _ROWS):
        attn = _weights(_tile(q, first, 3 * width, _ROWS, TOKENS, HEAD_DIM), keys, scale, TOKENS)
        smoothed = _product(attn.to(values.dtype), values)
        if STRENGTH == 0:
            _put(smoothed, out, first, width, TOKENS, HEAD_DIM)
        else:
            _put(smoothed, av, first, width, TOKENS, HEAD_DIM)
    if STRENGTH != 0:
        tl.debug_barrier()  # AV is whole
        rest = (values.to(tl.float32) - _tile(av, 0, width, ALL, TOKENS, HEAD_DIM).to(tl.float32)).to(values.dtype)
        for first in range(0, TOKENS, _ROWS):
            attn = _weights(_tile(q, first, 3 * width, _ROWS, TOKENS, HEAD_DIM), keys, scale, TOKENS)
            smoothed = _tile(av, first, width, _ROWS, TOKENS, HEAD_DIM).to(tl.float32)
            mixed = smoothed + STRENGTH * _product(attn.to(values.dtype), rest)
            _put(mixed, out, first, width, TOKENS, HEAD_DIM)


@triton.jit
def _backward(
    grad: "Any",
    qkv: "Any",
    av: "Any",
    packed: "Any",
    scale: "Any",
    STRENGTH: tl.constexpr,
    TOKENS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
) -> None:
    """The gradient `packed` of `qkv`, as `packed.py` derives it. D waits in the place of V's gradient."""
    ALL: tl.constexpr = _padded(TOKENS)
    image, head, width = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.num_programs(1) * HEAD_DIM
    q = qkv + image * TOKENS * 3 * width + head * HEAD_DIM
    grad_q = packed + image * TOKENS * 3 * width + head * HEAD_DIM
    grad_v = grad_q + 2 * width
    grad += image * TOKENS * width + head * HEAD_DIM
    av += image * TOKENS * width + head * HEAD_DIM
    keys = _tile(q + width, 0, 3 * width, ALL, TOKENS, HEAD_DIM)
    if STRENGTH != 0:
        smoothed = tl.zeros([ALL, _padded(HEAD_DIM)], tl.float32)
        for first in range(0, TOKENS, _BACK_ROWS):
            attn = _weights(_tile(q, first, 3 * width, _BACK_ROWS, TOKENS, HEAD_DIM), keys, scale, TOKENS)
            grads = _tile(grad, first, width, _BACK_ROWS, TOKENS, HEAD_DIM)
            smoothed += _product(tl.trans(attn.to(grads.dtype)), grads)
        whole = _tile(grad, 0, width, ALL, TOKENS, HEAD_DIM).to(tl.float32)
        _put((1 + STRENGTH) * whole - STRENGTH * smoothed, grad_v, 0, 3 * width, TOKENS, HEAD_DIM)
        tl.debug_barrier()  # D is whole
    sum_k = tl.zeros([ALL, _padded(HEAD_DIM)], tl.float32)
    sum_v = tl.zeros([ALL, _padded(HEAD_DIM)], tl.float32)
    for first in range(0, TOKENS, _BACK_ROWS):
        queries = _tile(q, first, 3 * width, _BACK_ROWS, TOKENS, HEAD_DIM)
        attn = _weights(queries, keys, scale, TOKENS)
        grads = _tile(grad, first, width, _BACK_ROWS, TOKENS, HEAD_DIM)
        if STRENGTH != 0:
            through = _tile(grad_v, first, 3 * width, _BACK_ROWS, TOKENS, HEAD_DIM)
            whole_av = _tile(av, 0, width, ALL, TOKENS, HEAD_DIM)
            grad_attn = -STRENGTH * _product(grads, tl.trans(whole_av))
        else:
            through = grads
            grad_attn = tl.zeros([_BACK_ROWS, ALL], tl.float32)
        values = _tile(q + 2 * width, 0, 3 * width, ALL, TOKENS, HEAD_DIM)
        grad_attn += _product(through, tl.trans(values))
        grad_scores = attn * (grad_attn - tl.sum(grad_attn * attn, 1)[:, None])
        grad_scores = (scale * grad_scores).to(queries.dtype)
        _put(_product(grad_scores, keys), grad_q, first, 3 * width, TOKENS, HEAD_DIM)
        sum_k += _product(tl.trans(grad_scores), queries)
        sum_v += _product(tl.trans(attn.to(through.dtype)), through)
    tl.debug_barrier()  # D has been read
    _put(sum_k, grad_q + width, 0, 3 * width, TOKENS, HEAD_DIM)
    _put(sum_v, grad_v, 0, 3 * width, TOKENS, HEAD_DIM)


@triton.constexpr_function
def _padded(size: int) -> int:
    """What a tile of a kernel can have along one side: a power of two, and what tensor cores take."""
    return int(max(16, triton.next_power_of_2(size)))


@triton.jit
def _tile(
    base: "Any",
    first: "Any",
    stride: "Any",
    ROWS: tl.constexpr,
    TOKENS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
) -> "Any":
    """(ROWS, head_dim) of one head from the token `first` on; zero beyond the tokens and head_dim."""
    rows, columns = first + tl.arange(0, ROWS), tl.arange(0, _padded(HEAD_DIM))
    inside = (rows < TOKENS)[:, None] & (columns < HEAD_DIM)[None, :]
    return tl.load(base + rows[:, None] * stride + columns[None, :], mask=inside, other=0.0)


@triton.jit
def _put(tile: "Any", base: "Any", first: "Any", stride: "Any", TOKENS: tl.constexpr, HEAD_DIM: tl.constexpr) -> None:
    """A tile such as `_tile` reads, into memory."""
    rows, columns = first + tl.arange(0, tile.shape[0]), tl.arange(0, tile.shape[1])
    inside = (rows < TOKENS)[:, None] & (columns < HEAD_DIM)[None, :]
    tl.store(base + rows[:, None] * stride + columns[None, :], tile.to(base.dtype.element_ty), mask=inside)


@triton.jit
def _weights(queries: "Any", keys: "Any", scale: "Any", TOKENS: tl.constexpr) -> "Any":
    """Rows of A in float32, (rows, padded tokens)."""
    scores = scale * _product(queries, tl.trans(keys))
    real = tl.arange(0, keys.shape[0]) < TOKENS
    scores = tl.where(real[None, :], scores, float("-inf"))
    exponentials = tl.exp(scores - tl.max(scores, 1)[:, None])
    return exponentials / tl.sum(exponentials, 1)[:, None]


@triton.jit
def _product(left: "Any", right: "Any") -> "Any":
    """In float32, whatever the factors are in; float32 factors are not rounded to TF32."""
    if _WIDEN:
        return tl.dot(left.to(tl.float32), right.to(tl.float32), input_precision="ieee")
    return tl.dot(left, right, input_precision="ieee")
