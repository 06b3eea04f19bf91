"""A vision transformer of known parts as one function, without a call of each of its 80 modules.

The same operations on the same numbers as the network's own forward, and their gradient written out. With a few images
the calls cost more than the operations: `deit` of the digits asks for 15 modules a block.
"""

import re
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from timm.layers import DropPath, LayerNorm, PatchEmbed
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.module import _has_any_global_hook

from robustbench_twicing.attention.packed import attention_gradient, attention_kept, by_strength, weights_of
from robustbench_twicing.attention.paths import MethodAttention, choose_path
from robustbench_twicing.machine import onednn
from robustbench_twicing.models.faster.last_block import ReadTokensBlock
from robustbench_twicing.models.faster.onednn_layers import FrozenLinear, FrozenMlp, FrozenPatches, multiplies_small

_NOTHING = (nn.Identity, nn.Dropout, DropPath)
"""Parts that do nothing in eval mode."""

_KINDS: dict[str, tuple[type[nn.Module], ...]] = {
    "patch_embed": (PatchEmbed,),
    "patch_embed.proj": (FrozenPatches,),
    "blocks": (nn.Sequential,),
    "norm": (LayerNorm, nn.LayerNorm),
    "head": (FrozenLinear,),
    "block": (Block, ReadTokensBlock),
    "block.norm1": (LayerNorm, nn.LayerNorm),
    "block.attn": (MethodAttention,),
    "block.attn.qkv": (FrozenLinear,),
    "block.attn.proj": (FrozenLinear,),
    "block.norm2": (LayerNorm, nn.LayerNorm),
    "block.mlp": (FrozenMlp,),
    "block.mlp.fc1": (FrozenLinear,),
    "block.mlp.act": (nn.GELU,),
    "block.mlp.fc2": (FrozenLinear,),
}
"""What each part must be exactly; one that is not named here must be of `_NOTHING`."""

_FEW = 128
"""Tokens. With more of them the operations take nearly all the time, and the trial is not worth its own."""

_PATCHED = {"forward", "forward_features", "forward_head", "pool", "_pos_embed"}


class Straight:
    """The way straight through a network. Made by `straight`."""

    def __init__(self, network: nn.Module, known: bool) -> None:
        self.network: Any = network
        self.known = known
        """Of the parts that this file knows."""
        self._parts = [(part, type(part), tuple(part._modules.values())) for part in network.modules()]
        self._weighted = [part for part in network.modules() if part._parameters]

    def takes(self, images: torch.Tensor) -> bool:
        """The network is still what it was, and nothing sees the difference but the clock."""
        network = self.network
        return (
            self.known
            and type(images) is torch.Tensor
            and images.device.type == network.pos_embed.device.type == "cpu"
            and images.dtype == network.pos_embed.dtype == torch.float32
            and images.shape[1:] == (3, *network.patch_embed.img_size)
            and len(images) > 0
            and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_compiling()
            and torch._C._get_tracing_state() is None
            and not _has_any_global_hook()
            and self._is_plain()
            and all(_is_plain_attention(block.attn) for block in network.blocks)
            and not any(block.attn.read for block in list(network.blocks)[:-1])
            and not (torch.is_grad_enabled() and self._wants_gradients())
        )

    def _is_plain(self) -> bool:
        """All parts are there and in eval mode, and nobody listens to one. Asked before each forward: no calls."""
        for part, kind, parts in self._parts:
            held = part.__dict__
            if (
                part.__class__ is not kind
                or held["training"]
                or held["_forward_hooks"]
                or held["_forward_pre_hooks"]
                or held["_backward_hooks"]
                or held["_backward_pre_hooks"]
                or "forward" in held
                or (parts and tuple(held["_modules"].values()) != parts)
            ):
                return False
        return True

    def _wants_gradients(self) -> bool:
        weights = (weight for part in self._weighted for weight in part._parameters.values() if weight is not None)
        return any(weight.requires_grad for weight in weights)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised images (batch, 3, H, W) that it `takes`, to logits, with the gradient of the images."""
        if torch.is_grad_enabled() and images.requires_grad:
            return cast(torch.Tensor, _Through.apply(images, self))
        return _through(self.network, images, None)


def straight(network: nn.Module) -> Straight:
    """The way straight through `network`. It takes no images unless that is timm's ViT of few tokens with our attention
    and frozen layers, and a trial has given its logits and gradients."""
    way = Straight(network, _is_known(network))
    if not way.known:
        return way
    size = cast(Any, network).patch_embed.img_size
    with torch.enable_grad():
        images = torch.linspace(-2, 2, 6 * size[0] * size[1]).view(2, 3, *size).sin().requires_grad_()
        if way.takes(images):
            found, expected = (_answered(forward, images) for forward in (way, network))
            # The same operations; only the order of products' sums may differ.
            near = [torch.allclose(ours, theirs, 1e-5, 1e-5) for ours, theirs in zip(found, expected, strict=True)]
            way.known = all(near)
    return way


def _answered(forward: Any, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Logits with a gradient and without one, and that of their squares."""
    logits = forward(images)
    with torch.no_grad():
        plain = forward(images)
    return logits.detach(), plain, torch.autograd.grad(logits.square().sum(), images)[0]


def _is_known(network: Any) -> bool:
    if type(network) is not VisionTransformer or _PATCHED & vars(network).keys():
        return False
    for name, part in network.named_modules():
        if name and type(part) not in _KINDS.get(re.sub(r"^blocks\.\d+", "block", name), _NOTHING):
            return False
    norms = [part for part in network.modules() if isinstance(part, nn.LayerNorm)]
    return (
        len(network.blocks) > 0
        and network.cls_token is not None
        and network.reg_token is None
        and network.pos_embed is not None
        and network.pos_embed.shape[1] <= _FEW
        and not network.no_embed_class
        and not network.dynamic_img_size
        and network.global_pool == "token"
        and network.attn_pool is None
        and network.patch_embed.flatten
        and network.patch_embed.img_size is not None
        and not network.patch_embed.dynamic_img_pad
        and network.patch_embed.proj.in_channels == 3
        and not any(getattr(norm, "_fast_norm", False) for norm in norms)
    )


def _is_plain_attention(attention: MethodAttention) -> bool:
    """Softmax or twicing with A in memory."""
    return (
        attention.mixing.strength is not None
        and attention.on_scores is None
        and attention.first is None
        and getattr(attention, "gate", None) is None
        and choose_path(attention.path, torch.device("cpu"), 0.0) == "explicit"
    )


class _Kept(NamedTuple):
    """What a block's gradient needs: its input and that of its second half, with means and scales of their norms,
    queries, keys and values, A and AV, or the last block's mixed values as autograd knows them, and its MLP before
    GELU."""

    x: torch.Tensor
    norm1: tuple[torch.Tensor, ...]
    qkv: torch.Tensor
    attn: torch.Tensor
    av: torch.Tensor
    middle: torch.Tensor
    norm2: tuple[torch.Tensor, ...]
    hidden: torch.Tensor


class _Through(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: torch.Tensor, way: Straight) -> torch.Tensor:
        ctx.network, ctx.kept = way.network, []
        ctx.save_for_backward(images)
        return _through(way.network, images, ctx.kept)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        if torch.is_grad_enabled():  # create_graph=True: leave it to autograd
            (images,) = ctx.saved_tensors
            return torch.autograd.grad(ctx.network(images), images, grad, create_graph=True)[0], None
        return _back(ctx.network, grad, ctx.kept), None


def _through(network: Any, images: torch.Tensor, kept: list[Any] | None) -> torch.Tensor:
    """Logits. What the gradient needs goes into `kept`, if there is one."""
    patches = network.patch_embed.proj
    high, wide = patches.kernel_size
    windows = images.unflatten(2, (-1, high)).unflatten(4, (-1, wide)).permute(0, 2, 4, 1, 3, 5).flatten(3)
    tokens = _times(windows, patches.weight.flatten(1), patches.bias).flatten(1, 2)
    x = torch.cat((network.cls_token.expand(len(tokens), -1, -1), tokens), dim=1).add_(network.pos_embed)
    for block in network.blocks:
        x = _block(block, x, kept)
    y, *norm = _normed(network.norm, x)
    if kept is not None:
        kept.append((x, norm))
    return _times(y[:, 0], network.head.weight, network.head.bias)


def _block(block: Any, x: torch.Tensor, kept: list[Any] | None) -> torch.Tensor:
    attention, mlp = block.attn, block.mlp
    batch, tokens, width = x.shape
    y, *norm1 = _normed(block.norm1, x)
    qkv = _times(y, attention.qkv.weight, attention.qkv.bias)
    qkv = qkv.view(batch, tokens, 3, attention.num_heads, attention.head_dim)
    whole, strength = x, attention.mixing.strength
    attn = av = qkv
    if attention.read is None:
        mixed, attn, av = attention_kept(qkv, attention.scale, strength, kept is not None)
    else:
        qkv = qkv.detach().requires_grad_(kept is not None)
        with torch.set_grad_enabled(kept is not None):
            q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
            attn = by_strength(strength, q, v, partial(weights_of, k, attention.scale), attention.read).transpose(1, 2)
        mixed, x = attn.detach(), x[:, : attention.read]
    middle = _times(mixed.reshape(batch, -1, width), attention.proj.weight, attention.proj.bias).add_(x)
    y, *norm2 = _normed(block.norm2, middle)
    if kept is not None or multiplies_small(y, mlp.fc1.weight):
        hidden = _times(y, mlp.fc1.weight, mlp.fc1.bias)
        active = F.gelu(hidden, approximate=mlp.act.approximate)
        if kept is not None:
            kept.append(_Kept(whole, tuple(norm1), qkv, attn, av, middle, tuple(norm2), hidden))
    else:
        active = onednn.product(y, mlp.fc1.weight, mlp.fc1.bias, onednn.GELU[mlp.act.approximate])
    return _times(active, mlp.fc2.weight, mlp.fc2.bias).add_(middle)


def _back(network: Any, grad: torch.Tensor, kept: list[Any]) -> torch.Tensor:
    """The gradient of the images."""
    *blocks, (x, norm) = kept
    first = _times_back(grad, network.head.weight)[:, None]
    whole = first if x.shape[1] == 1 else torch.cat((first, torch.zeros_like(x[:, 1:])), dim=1)
    grad = _normed_back(network.norm, whole, x, norm)
    for block, found in zip(reversed(network.blocks), reversed(blocks), strict=True):
        grad = _block_back(block, grad, found)
    patches = network.patch_embed.proj
    (high, wide), (rows, columns) = patches.kernel_size, network.patch_embed.grid_size
    windows = _times_back(grad[:, 1:].contiguous(), patches.weight.flatten(1))
    windows = windows.view(-1, rows, columns, patches.in_channels, high, wide)
    return windows.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


def _block_back(block: Any, grad: torch.Tensor, kept: _Kept) -> torch.Tensor:
    attention, mlp = block.attn, block.mlp
    hidden = torch.ops.aten.gelu_backward(
        _times_back(grad, mlp.fc2.weight), kept.hidden, approximate=mlp.act.approximate
    )
    middle = _normed_back(block.norm2, _times_back(hidden, mlp.fc1.weight), kept.middle, kept.norm2).add_(grad)
    mixed = _times_back(middle, attention.proj.weight)
    mixed = mixed.unflatten(2, (attention.num_heads, attention.head_dim))
    if attention.read is None:
        qkv = attention_gradient(mixed, kept.qkv, kept.attn, kept.av, attention.scale, attention.mixing.strength)
    else:
        (qkv,) = torch.autograd.grad(kept.attn, kept.qkv, mixed, retain_graph=True)
    x = _normed_back(block.norm1, _times_back(qkv.flatten(2), attention.qkv.weight), kept.x, kept.norm1)
    x[:, : middle.shape[1]] += middle
    return x


def _times(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return F.linear(x, weight, bias) if multiplies_small(x, weight) else onednn.product(x, weight, bias)


def _times_back(grad: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    if multiplies_small(grad, weight.t()):
        multiplied: torch.Tensor = grad.flatten(0, -2) @ weight
        return multiplied.view(*grad.shape[:-1], -1)
    return onednn.product(grad, weight.t(), None)


def _normed(norm: Any, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.native_layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def _normed_back(norm: Any, grad: torch.Tensor, x: torch.Tensor, kept: Any) -> torch.Tensor:
    wanted = [True, False, False]
    given = (grad, x, norm.normalized_shape, *kept, norm.weight, norm.bias, wanted)
    return cast(torch.Tensor, torch.ops.aten.native_layer_norm_backward(*given)[0])
