"""Other gradients within a network for a while, its answers and its weights being the same."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from timm.models.vision_transformer import Attention as TimmAttention
from torch import nn

from robustbench_twicing.attention.convert import unknown_block
from robustbench_twicing.attention.packed import OnScores
from robustbench_twicing.attention.paths import MethodAttention
from robustbench_twicing.errors import UserError
from robustbench_twicing.spec.methods import SOFTMAX

OnGradient = Callable[[torch.Tensor], torch.Tensor] | None
"""Is given the gradient of some tokens, (batch, tokens, width), and returns what goes on backward; None: the same."""

_WHAT_WORKS = "It needs a network built on timm's Attention: ViT, DeiT, DeiT III. Any network takes pgd or mifgsm."


class Alterations(NamedTuple):
    """What is done in every block."""

    on_scores: OnScores = None
    on_qkv: OnGradient = None
    """To the gradient of queries, keys and values in one, (batch, tokens, 3 · width)."""
    on_mlp: OnGradient = None
    """To the gradient of what the MLP gives."""


@contextmanager
def altered(network: nn.Module, alterations: Alterations | Callable[[int], Alterations]) -> Iterator[None]:
    """Within, the blocks of `network` compute with A in memory, all tokens of them, and gradients as altered: alike in
    all blocks, or as a function says of each block's number, from 0.

    Afterwards the network is as it was, to the bit: each block has its own attention back, and no hook is left. Raises
    `UserError`, with nothing changed, for a network of which not every attention is timm's or ours.
    """
    blocks = require_attention(network)
    with ExitStack() as stack:
        for number, block in enumerate(blocks):
            here = alterations if isinstance(alterations, Alterations) else alterations(number)
            own = block.attn
            ours = MethodAttention.of(own, own.method if isinstance(own, MethodAttention) else SOFTMAX)
            ours.read, ours.on_scores = None, here.on_scores
            block.attn = ours
            stack.callback(setattr, block, "attn", own)
            for part, change in ((own.qkv, here.on_qkv), (block.mlp, here.on_mlp)):
                if change is not None:
                    stack.callback(part.register_forward_hook(_changing(change)).remove)
        yield


def require_attention(network: nn.Module) -> list[Any]:
    """The blocks of a network, or of what it wraps. Raises `UserError` if there are none, or not such as we know."""
    if any(isinstance(module, torch.jit.ScriptModule) or hasattr(module, "_orig_mod") for module in network.modules()):
        raise UserError(
            "The attention of a compiled, scripted or traced network cannot be reached.",
            "Leave --compile away, or pass the module that it was made from.",
        )
    blocks: list[Any] = [module for module in network.modules() if isinstance(getattr(module, "attn", None), nn.Module)]
    if not blocks:
        raise UserError("This attack looks into attention, and the network has none that it can reach.", _WHAT_WORKS)
    for block in blocks:
        known = type(block.attn) in (TimmAttention, MethodAttention)
        if not known or not isinstance(getattr(block, "mlp", None), nn.Module):
            raise UserError(unknown_block(network, type(block).__name__, block).message, _WHAT_WORKS)
    return blocks


def _changing(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., None]:
    def attach(module: nn.Module, args: tuple[Any, ...], out: torch.Tensor) -> None:
        if out.requires_grad:
            out.register_hook(change)

    return attach
