"""Looks into a network while it computes, through hooks that change nothing of what comes out.

Of a vision transformer the tokens behind every block and the queries and keys of its attention; of any other network
the feature maps behind its parts, whose positions are its tokens.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from timm.models.vision_transformer import Attention as TimmAttention
from timm.models.vision_transformer import Block
from torch import nn

from robustbench_twicing.attention.methods import METHODS, mixing_of
from robustbench_twicing.attention.paths import MethodAttention
from robustbench_twicing.errors import UserError
from robustbench_twicing.inside.found import Place
from robustbench_twicing.models.faster.last_block import ReadTokensBlock
from robustbench_twicing.spec.methods import SOFTMAX, Method

_NOT_LINEAR = 1e-6
"""How far a method may be from the matrix that it makes of the identity, relative to what it gives."""


class Seen(NamedTuple):
    """Tokens at one place of a network, of one batch."""

    place: Place
    tokens: torch.Tensor
    """(batch, tokens, width), without class and register tokens."""
    grid: tuple[int, int] | None
    """Rows and columns in which they lie."""
    class_token: torch.Tensor | None


class Mixed(NamedTuple):
    """What mixed the tokens of one block, of one batch."""

    place: Place
    attention: torch.Tensor
    """A, (batch, heads, tokens, tokens)."""
    operator: torch.Tensor | None
    """What the method has in the place of A; None where it is no matrix that is applied to the values."""


Heard = Callable[[Seen | Mixed], None]


class Parts(NamedTuple):
    """What can be looked at in a network."""

    places: tuple[Place, ...]
    modules: tuple[nn.Module, ...]
    """The place behind each; a transformer's first place, `input`, is what goes into its first block."""
    is_transformer: bool
    missing: tuple[str, ...]
    """In sentences, which figures there are not."""


def transformer_in(module: nn.Module) -> nn.Module:
    """The part of a module that has transformer blocks; the module itself if none has."""
    return next((part for part in module.modules() if _blocks(part) is not None), module)


def _blocks(module: nn.Module) -> nn.Sequential | nn.ModuleList | None:
    blocks = getattr(module, "blocks", None)
    has_some = isinstance(blocks, nn.Sequential | nn.ModuleList) and any(hasattr(block, "attn") for block in blocks)
    return blocks if has_some else None


def parts_of(network: nn.Module) -> Parts:
    """The blocks of a transformer, else the parts of the network in their order. Raises `UserError` as
    `require_open`."""
    require_open(network)
    if (blocks := _blocks(network)) is not None:
        names = ["input", *(f"block {number}" for number in range(len(blocks)))]
        unknown = [str(number) for number, block in enumerate(blocks) if not _shows_attention(block)]
        missing = (
            [f"Attention's figures are missing in block {', '.join(unknown)}: it is not built as timm's Attention."]
            if unknown
            else []
        )
        return Parts(tuple(map(Place, range(len(names)), names)), tuple(blocks), True, tuple(missing))
    parts = list(network.named_children())
    while len(parts) == 1 and list(parts[0][1].children()):
        parts = list(parts[0][1].named_children())
    why = "It has no transformer blocks: figures of feature maps only, none of attention and none of a class token."
    places = tuple(Place(number, name) for number, (name, _) in enumerate(parts))
    return Parts(places, tuple(module for _, module in parts), False, (why,))


def require_open(network: nn.Module) -> None:
    """Raise `UserError` for a module whose parts need not call what is hooked to them."""
    if any(isinstance(module, torch.jit.ScriptModule) or hasattr(module, "_orig_mod") for module in network.modules()):
        raise UserError(
            "The parts of a compiled, scripted or traced module cannot be looked at.",
            "Pass the module that it was made from, before torch.compile or torch.jit.",
        )


@contextmanager
def watching(network: nn.Module, parts: Parts, heard: Heard) -> Iterator[None]:
    """Within, every forward of `network` tells `heard` what is seen, place by place. Its outputs stay bit-identical."""
    with ExitStack() as hooks:
        for number, module in enumerate(parts.modules):
            if parts.is_transformer:
                handles: Iterable[Any] = _watch_block(
                    network, module, parts.places[number : number + 2], number == 0, heard
                )
            else:
                handles = [module.register_forward_hook(_tell_features(network, parts.places[number], heard))]
            for handle in handles:
                hooks.callback(handle.remove)
        yield


def _watch_block(
    network: nn.Module, block: nn.Module, places: tuple[Place, ...], first: bool, heard: Heard
) -> Iterator[Any]:
    before, behind = places

    def enter(module: nn.Module, args: tuple[Any, ...]) -> None:
        if first:
            heard(_tokens(network, before, args[0]))

    def leave(module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        whole = _whole(module, args[0]) if isinstance(module, ReadTokensBlock) else out
        heard(_tokens(network, behind, whole))

    yield block.register_forward_pre_hook(enter)
    yield block.register_forward_hook(leave)
    if not _shows_attention(block):
        return
    attention: Any = block.attn
    queries: list[torch.Tensor] = []

    def keep(module: nn.Module, args: tuple[Any, ...], out: torch.Tensor) -> None:
        queries[:] = [out]

    def mix(module: nn.Module, args: tuple[Any, ...], out: torch.Tensor) -> None:
        if queries:
            heard(_mixed(behind, attention, queries.pop(), out, first))

    yield attention.q_norm.register_forward_hook(keep)
    yield attention.k_norm.register_forward_hook(mix)


def _shows_attention(block: nn.Module) -> bool:
    attention = getattr(block, "attn", None)
    parts = ("q_norm", "k_norm", "scale")
    return isinstance(attention, TimmAttention) and all(hasattr(attention, part) for part in parts)


def _tell_features(network: nn.Module, place: Place, heard: Heard) -> Callable[..., None]:
    last = getattr(network, "output_fmt", "NCHW") == "NHWC"

    def tell(module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        if isinstance(out, torch.Tensor) and out.ndim == 4:
            if last:
                out = out.permute(0, 3, 1, 2)
            heard(Seen(place, out.flatten(2).transpose(1, 2), (out.shape[2], out.shape[3]), None))

    return tell


def _tokens(network: nn.Module, place: Place, out: torch.Tensor) -> Seen:
    before = getattr(network, "num_prefix_tokens", 1)
    count = out.shape[1] - before
    embed: Any = getattr(network, "patch_embed", None)
    grid = getattr(embed, "grid_size", None)
    lies = (grid[0], grid[1]) if isinstance(grid, tuple) and len(grid) == 2 and grid[0] * grid[1] == count else None
    has_class = before and getattr(network, "cls_token", None) is not None
    return Seen(place, out[:, before:], lies, out[:, 0] if has_class else None)


def _whole(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """All tokens behind a block that computes only those that the head reads; computed beside it."""
    attention: Any = block.attn
    read, hooks = attention.read, [attention.q_norm._forward_hooks, attention.k_norm._forward_hooks]
    kept = [dict(held) for held in hooks]
    try:
        attention.read = None
        for held in hooks:
            held.clear()
        with torch.no_grad():
            result: torch.Tensor = Block.forward(block, x)  # type: ignore[arg-type]  # what it was made of
        return result
    finally:
        attention.read = read
        for held, were in zip(hooks, kept, strict=True):
            held.update(were)


def _mixed(place: Place, attention: Any, q: torch.Tensor, k: torch.Tensor, first: bool) -> Mixed:
    with torch.no_grad():
        q, k = q.double(), k.double()
        weights = (float(attention.scale) * (q @ k.transpose(-2, -1))).softmax(-1)
        method = attention.method if isinstance(attention, MethodAttention) else SOFTMAX
        return Mixed(place, weights, operator_of(method, q, k, float(attention.scale), weights, first))


def operator_of(
    method: Method, q: torch.Tensor, k: torch.Tensor, scale: float, weights: torch.Tensor, first: bool
) -> torch.Tensor | None:
    """The matrix M of which the method's output is M·V, (batch, heads, tokens, tokens); None if there is none.

    `weights` is A. A method that reads the first block's values has none, except in the first block.
    """
    mixing = mixing_of(method)
    if METHODS[method.name].needs_first:
        return weights if first else None
    if mixing.strength is not None:
        return weights + mixing.strength * (weights - weights @ weights)
    identity = torch.eye(q.shape[2], dtype=q.dtype, device=q.device).expand(*q.shape[:2], -1, -1)
    operator: torch.Tensor = mixing.formula(_Inputs(q, k, identity, scale), *mixing.numbers)
    # On the keys as values, which are at hand: whatever is no matrix gives something else.
    given: torch.Tensor = mixing.formula(_Inputs(q, k, k, scale), *mixing.numbers)
    is_linear = (operator @ k - given).norm() <= _NOT_LINEAR * given.norm()
    return operator if is_linear else None


class _Inputs:
    """What a formula is written with; `v` may be wider than a head, such as all columns of the identity."""

    def __init__(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> None:
        self.q, self.k, self.v, self.first_v = q, k, v, v
        self._scale = scale

    def attend(self, values: torch.Tensor, q: torch.Tensor | None = None) -> torch.Tensor:
        scores = self._scale * ((self.q if q is None else q) @ self.k.transpose(-2, -1))
        return scores.softmax(-1) @ values
