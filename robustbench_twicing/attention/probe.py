"""Which blocks of a network compute with which attention, found by their behaviour."""

import math
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from robustbench_twicing.attention.convert import blocks_of, unknown_block
from robustbench_twicing.errors import UserError


def twicing_blocks(model: nn.Module) -> tuple[int, ...]:
    """The blocks of `model`, from 0, that compute (2A - A²)V instead of AV, found by their behaviour.

    Each block's attention gets one seeded random input; A and V are rebuilt in float64 from the queries, keys and
    values it was seen to use, and what it did with them is compared with both formulas. Class names play no part.
    Raises `UserError` if a block does neither, or cannot be looked into. Global random state stays as it is.
    """
    return tuple(number for number, block in enumerate(blocks_of(model)) if _is_twicing(model, number, block))


_PROBE_TOKENS = 24
# A uniform A satisfies A² = A, so the two formulas only differ if attention is peaked: the input grows until they do.
_PROBE_SCALES = (1.0, 4.0, 16.0, 64.0, 256.0)
_MIN_SEPARATION = 0.2
"""Distance between the two formulas, relative to their size. Half-precision rounding is about a hundredth."""
_MAX_MISS = 0.25
"""Distance to the nearer formula, relative to the distance between the two."""


def _is_twicing(model: nn.Module, number: int, block: nn.Module) -> bool:
    attention: Any = getattr(block, "attn", None)
    parts = ("qkv", "q_norm", "k_norm", "proj", "num_heads")
    if not all(hasattr(attention, part) for part in parts):
        raise unknown_block(model, f"blocks.{number}", block)
    weight = attention.qkv.weight
    generator = torch.Generator().manual_seed(number)
    noise = torch.randn(1, _PROBE_TOKENS, weight.shape[1], generator=generator, dtype=torch.float64)
    was_training = attention.training
    attention.eval()  # no dropout
    try:
        for scale in _PROBE_SCALES:
            seen = _observe(attention, (noise * scale).to(weight))
            if len(seen) < 4:
                raise unknown_block(model, f"blocks.{number}", block)
            attn = (seen["q"] @ seen["k"].transpose(-2, -1) / math.sqrt(seen["q"].shape[-1])).softmax(dim=-1)
            once = attn @ seen["v"]
            twice = 2 * once - attn @ once
            # A last block may compute only the tokens that are read, which come first.
            once, twice = (mixed[:, :, : seen["mixed"].shape[2]] for mixed in (once, twice))
            separation = (twice - once).norm()
            if not separation > _MIN_SEPARATION * once.norm():
                continue
            to_once, to_twice = (seen["mixed"] - once).norm(), (seen["mixed"] - twice).norm()
            if torch.minimum(to_once, to_twice) <= _MAX_MISS * separation:
                return bool(to_twice < to_once)
            raise UserError(
                f"blocks.{number} of {type(model).__name__} computes neither A·V nor (2A - A²)·V "
                f"({type(attention).__name__}).",
                "Only softmax attention and twicing attention can be told apart.",
            )
    finally:
        attention.train(was_training)
    raise UserError(
        f"Cannot tell whether blocks.{number} of {type(model).__name__} is twicing: its attention is uniform.",
        "The weights of this block may be zero or not a number; check the checkpoint.",
    )


def _observe(attention: Any, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """The q, k, v (1, heads, tokens, head_dim) that `attention` used on `x`, and what it "mixed" them to, in float64.

    "mixed" has fewer tokens, the first ones, if `attention` computes no more. What it never computed is left out.
    """
    seen: dict[str, torch.Tensor] = {}

    def heads(tokens: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = tokens.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
        return result

    def keep(name: str, tensor: torch.Tensor) -> None:
        seen[name] = tensor.cpu().double()

    # What comes out of the product with V goes into `norm` where timm has one, else straight into the projection.
    after = getattr(attention, "norm", attention.proj)
    with ExitStack() as hooks, torch.no_grad():
        for handle in (
            attention.q_norm.register_forward_hook(lambda module, args, out: keep("q", out)),
            attention.k_norm.register_forward_hook(lambda module, args, out: keep("k", out)),
            attention.qkv.register_forward_hook(lambda module, args, out: keep("v", heads(out.chunk(3, dim=-1)[2]))),
            after.register_forward_pre_hook(lambda module, args: keep("mixed", heads(args[0]))),
        ):
            hooks.callback(handle.remove)
        attention(x)
    return seen
