"""Twicing attention into a model, and the probe that finds it there."""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, TypeVar

import torch
from timm.models.vision_transformer import Attention
from torch import nn

from robustbench_twicing.errors import UserError
from robustbench_twicing.models.attention import SoftmaxAttention, TwicingAttention

M = TypeVar("M", bound=nn.Module)


def apply_twicing(model: M, layers: str | Sequence[int] = "all") -> M:
    """`model` itself, with twicing attention in some of its blocks. In place; weights and state-dict keys stay.

    `layers`: "all", "last3" (the paper's variant for blocks 10-12 of 12), "none", or block numbers from 0. Blocks that
    are twicing already stay so. Takes any timm model whose `blocks` are built on timm's `Attention`: ViT, DeiT,
    distilled DeiT, DeiT III. Raises `UserError`, with the model unchanged, for another block or a number out of range.
    """
    blocks = _blocks(model)
    chosen = block_numbers(layers, len(blocks))
    converted = {}
    for number in chosen:
        attention: Any = getattr(blocks[number], "attn", None)
        if isinstance(attention, TwicingAttention):
            continue
        if type(attention) not in (Attention, SoftmaxAttention):
            raise _unknown_block(model, f"blocks.{number}", blocks[number])
        converted[number] = TwicingAttention.of(attention)
    for number, attention in converted.items():
        blocks[number].attn = attention
    return model


def apply_softmax(model: M) -> M:
    """`model` itself, with our softmax attention where a block has exactly timm's. In place; state-dict keys stay.

    It computes what timm's does, but can follow `set_attention_path` along the same two paths as twicing, so that
    models compared differ in nothing else. Any other block, and a model without blocks, is left as it is.
    """
    blocks = getattr(model, "blocks", None)
    for block in blocks if isinstance(blocks, nn.Sequential | nn.ModuleList) else ():
        attention: Any = getattr(block, "attn", None)
        if type(attention) is Attention:
            block.attn = SoftmaxAttention.of(attention)
    return model


def block_numbers(layers: str | Sequence[int], count: int) -> tuple[int, ...]:
    """The blocks, from 0 and in order, that `layers` means in a model of `count` blocks. Raises `UserError`."""
    if isinstance(layers, str):
        named = {"none": (), "all": tuple(range(count)), "last3": tuple(range(max(0, count - 3), count))}
        if layers not in named:
            raise UserError(f"Unknown layers {layers!r}.", "Write all, last3, none, or block numbers from 0.")
        return named[layers]
    outside = sorted({number for number in layers if not 0 <= number < count})
    if outside:
        raise UserError(
            f"No block {', '.join(map(str, outside))} in a model of {count} blocks.",
            f"Blocks are numbered from 0 to {count - 1}.",
        )
    return tuple(sorted(set(layers)))


def twicing_blocks(model: nn.Module) -> tuple[int, ...]:
    """The blocks of `model`, from 0, that compute (2A - A²)V instead of AV, found by their behaviour.

    Each block's attention gets one seeded random input; A and V are rebuilt in float64 from the queries, keys and
    values it was seen to use, and what it did with them is compared with both formulas. Class names play no part.
    Raises `UserError` if a block does neither, or cannot be looked into. Global random state stays as it is.
    """
    return tuple(number for number, block in enumerate(_blocks(model)) if _is_twicing(model, number, block))


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
        raise _unknown_block(model, f"blocks.{number}", block)
    weight = attention.qkv.weight
    generator = torch.Generator().manual_seed(number)
    noise = torch.randn(1, _PROBE_TOKENS, weight.shape[1], generator=generator, dtype=torch.float64)
    was_training = attention.training
    attention.eval()  # no dropout
    try:
        for scale in _PROBE_SCALES:
            seen = _observe(attention, (noise * scale).to(weight))
            if len(seen) < 4:
                raise _unknown_block(model, f"blocks.{number}", block)
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
        return tokens.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)

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


def _blocks(model: nn.Module) -> Any:
    """The model's transformer blocks."""
    blocks = getattr(model, "blocks", None)
    if isinstance(blocks, nn.Sequential | nn.ModuleList) and len(blocks):
        return blocks
    for name, module in model.named_modules():
        if hasattr(module, "attn"):
            raise _unknown_block(model, name, module)
    raise UserError(f"{type(model).__name__} has no transformer blocks.", _WHAT_WORKS)


_WHAT_WORKS = "Twicing works on models whose `blocks` use timm's Attention: ViT, DeiT, distilled DeiT, DeiT III."


def _unknown_block(model: nn.Module, name: str, block: nn.Module) -> UserError:
    # With the module's path: other models have an Attention of their own.
    kinds = [type(part) for part in (block, getattr(block, "attn", None)) if isinstance(part, nn.Module)]
    described = " with ".join(f"{kind.__module__}.{kind.__name__}" for kind in kinds)
    return UserError(f"{type(model).__name__}: unknown block {name} ({described}).", _WHAT_WORKS)
