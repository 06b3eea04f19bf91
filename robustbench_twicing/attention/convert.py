"""Twicing attention into a model."""

from collections.abc import Sequence
from typing import Any, TypeVar

from timm.models.vision_transformer import Attention
from torch import nn

from robustbench_twicing.attention.paths import SoftmaxAttention, TwicingAttention
from robustbench_twicing.errors import UserError

M = TypeVar("M", bound=nn.Module)


def apply_twicing(model: M, layers: str | Sequence[int] = "all") -> M:
    """`model` itself, with twicing attention in some of its blocks. In place; weights and state-dict keys stay.

    `layers`: "all", "last3" (the paper's variant for blocks 10-12 of 12), "none", or block numbers from 0. Blocks that
    are twicing already stay so. Takes any timm model whose `blocks` are built on timm's `Attention`: ViT, DeiT,
    distilled DeiT, DeiT III. Raises `UserError`, with the model unchanged, for another block or a number out of range.
    """
    blocks = blocks_of(model)
    chosen = block_numbers(layers, len(blocks))
    converted = {}
    for number in chosen:
        attention: Any = getattr(blocks[number], "attn", None)
        if isinstance(attention, TwicingAttention):
            continue
        if type(attention) not in (Attention, SoftmaxAttention):
            raise unknown_block(model, f"blocks.{number}", blocks[number])
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


def blocks_of(model: nn.Module) -> Any:
    """The model's transformer blocks."""
    blocks = getattr(model, "blocks", None)
    if isinstance(blocks, nn.Sequential | nn.ModuleList) and len(blocks):
        return blocks
    for name, module in model.named_modules():
        if hasattr(module, "attn"):
            raise unknown_block(model, name, module)
    raise UserError(f"{type(model).__name__} has no transformer blocks.", _WHAT_WORKS)


_WHAT_WORKS = "Twicing works on models whose `blocks` use timm's Attention: ViT, DeiT, distilled DeiT, DeiT III."


def unknown_block(model: nn.Module, name: str, block: nn.Module) -> UserError:
    # With the module's path: other models have an Attention of their own.
    kinds = [type(part) for part in (block, getattr(block, "attn", None)) if isinstance(part, nn.Module)]
    described = " with ".join(f"{kind.__module__}.{kind.__name__}" for kind in kinds)
    return UserError(f"{type(model).__name__}: unknown block {name} ({described}).", _WHAT_WORKS)
