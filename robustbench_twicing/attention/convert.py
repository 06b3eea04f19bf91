"""Another method of attention into a model."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from timm.models.vision_transformer import Attention as TimmAttention
from torch import nn

from robustbench_twicing.attention.in_transformers import apply_in_transformers, is_of_transformers
from robustbench_twicing.attention.methods import mixing_of, settled
from robustbench_twicing.attention.paths import FirstValues, MethodAttention
from robustbench_twicing.errors import UserError
from robustbench_twicing.spec.methods import SOFTMAX, Attention, Layers, Method

M = TypeVar("M", bound=nn.Module)


def apply_method(model: M, attention: str | Attention) -> M:
    """`model` itself, with this attention: `twicing`, `twicing(0.5)@last3`, `twicing@0,1+twicing(0.5)@9-11`, `softmax`.

    In place; weights and state-dict keys stay. Blocks are numbered from 0; those that are not named get softmax
    attention, which timm's own modules have already. Takes any timm model whose `blocks` are built on timm's
    `Attention`: ViT, DeiT, distilled DeiT, DeiT III; of Hugging Face's transformers what `apply_in_transformers` takes.
    Raises `UserError`, with the model unchanged, for an unknown method, a number or a block out of range, and another
    block where a method is to go.
    """
    if is_of_transformers(model):
        return apply_in_transformers(model, attention)
    blocks = blocks_of(model)
    wanted = settled(Attention.parse(attention) if isinstance(attention, str) else attention).methods(len(blocks))
    return _put(
        model,
        {
            number: method
            for number, method in enumerate(wanted)
            if method != SOFTMAX or isinstance(getattr(blocks[number], "attn", None), MethodAttention)
        },
    )


def apply_twicing(model: M, layers: str | Sequence[int] = "all") -> M:
    """`model` itself, with twicing attention in some of its blocks; others stay as they are. Else as `apply_method`.

    `layers`: "all", "last3" (the paper's variant for blocks 10-12 of 12), "0,1,5", "9-11", "none", or block numbers.
    """
    count = len(blocks_of(model))
    return _put(model, dict.fromkeys(block_numbers(layers, count), Method("twicing")))


def apply_softmax(model: M) -> M:
    """`model` itself, with our softmax attention where a block has exactly timm's. In place; state-dict keys stay.

    It computes what timm's does, but can follow `set_attention_path` along the same two paths as other methods, so that
    models compared differ in nothing else. Any other block, and a model without blocks, is left as it is.
    """
    blocks = getattr(model, "blocks", None)
    for block in blocks if isinstance(blocks, nn.Sequential | nn.ModuleList) else ():
        attention: Any = getattr(block, "attn", None)
        if type(attention) is TimmAttention:
            block.attn = MethodAttention.of(attention, SOFTMAX)
    return model


def block_numbers(layers: str | Sequence[int], count: int) -> tuple[int, ...]:
    """The blocks, from 0 and in order, that `layers` means in a model of `count` blocks. Raises `UserError`."""
    if isinstance(layers, str):
        return () if layers == "none" else Layers.parse(layers).of(count)
    return Layers(tuple(sorted(set(layers)))).of(count) if layers else ()


def blocks_of(model: nn.Module) -> Any:
    """The model's transformer blocks."""
    blocks = getattr(model, "blocks", None)
    if isinstance(blocks, nn.Sequential | nn.ModuleList) and len(blocks):
        return blocks
    for name, module in model.named_modules():
        if hasattr(module, "attn"):
            raise unknown_block(model, name, module)
    raise UserError(f"{type(model).__name__} has no transformer blocks.", _WHAT_WORKS)


def _put(model: M, methods: Mapping[int, Method]) -> M:
    """Put a method into each of these blocks, or, with `UserError`, into none."""
    blocks = blocks_of(model)
    converted = {}
    if any(mixing_of(method).needs_first for method in methods.values()):
        had = getattr(getattr(blocks[0], "attn", None), "method", SOFTMAX)
        methods = {0: had, **methods}  # whoever hands its values on is one of ours
    for number, method in methods.items():
        attention: Any = getattr(blocks[number], "attn", None)
        if type(attention) not in (TimmAttention, MethodAttention):
            raise unknown_block(model, f"blocks.{number}", blocks[number])
        if getattr(attention, "method", None) != method:
            converted[number] = MethodAttention.of(attention, method)
    for number, attention in converted.items():
        blocks[number].attn = attention
    _share_first_values(blocks)
    return model


def _share_first_values(blocks: Any) -> None:
    """Tie the first block to those behind it whose method reads its values."""
    ours = [block.attn for block in blocks if isinstance(getattr(block, "attn", None), MethodAttention)]
    reading = [attention for attention in ours if attention.mixing.needs_first and attention is not blocks[0].attn]
    shared = FirstValues() if reading else None
    for attention in ours:
        attention.first, attention.place = shared, "between"
    if reading:
        blocks[0].attn.place, reading[-1].place = "first", "last"


_WHAT_WORKS = "Methods go into models whose `blocks` use timm's Attention: ViT, DeiT, distilled DeiT, DeiT III."


def unknown_block(model: nn.Module, name: str, block: nn.Module) -> UserError:
    # With the module's path: other models have an Attention of their own.
    kinds = [type(part) for part in (block, getattr(block, "attn", None)) if isinstance(part, nn.Module)]
    described = " with ".join(f"{kind.__module__}.{kind.__name__}" for kind in kinds)
    return UserError(f"{type(model).__name__}: unknown block {name} ({described}).", _WHAT_WORKS)
