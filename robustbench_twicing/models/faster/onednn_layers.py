"""Linear layers and patch embeddings of a frozen network through oneDNN's products, on a CPU.

The same sums in another order: results differ from torch's own layers in the last bits. Whether a run went this way is
recorded.
"""

from typing import Any, cast

import torch
from timm.layers import Mlp
from torch import nn
from torch.nn import functional as F

from robustbench_twicing.machine import onednn

_TYPES = tuple(dtype for dtype in (torch.float32, torch.bfloat16) if onednn.available(dtype))

_SMALL = 2**22
"""Multiplications of a product up to which torch's own is faster: one of oneDNN's takes 35 to 50 µs before it begins,
torch's 10 (of 17 rows, 64 by 192, on an EPYC: 57 and 14 in all)."""


def use_onednn(network: nn.Module) -> int:
    """Make the linear layers and patch embeddings of `network` use oneDNN where they can; returns how many.

    In place; weights, state-dict keys and hooks stay. Each forward decides by itself: on a CPU, in float32 or bfloat16,
    with weights that need no gradient. Anything else is computed by torch as before. 0 where torch has no usable
    oneDNN.
    """
    changed = 0
    for module in network.modules() if _TYPES else ():
        if type(module) is nn.Linear:
            module.__class__ = FrozenLinear
        elif type(module) is nn.Conv2d and cuts_patches(module):
            module.__class__ = FrozenPatches
        elif type(module) is Mlp and type(module.act) is nn.GELU and type(module.norm) is nn.Identity:
            module.__class__ = FrozenMlp
            continue
        else:
            continue
        changed += 1
    return changed


class FrozenLinear(nn.Linear):
    """A linear layer whose weights get no gradient. Made by `use_onednn`."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As `torch.nn.Linear`."""
        return _linear(x, self.weight, self.bias)


class FrozenPatches(nn.Conv2d):
    """A convolution whose windows touch but do not overlap, as the linear layer of each window that it is."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, channels, height, width) to (batch, width of a token, rows of patches, columns of patches)."""
        high, wide = self.kernel_size
        if x.device.type != "cpu" or x.ndim != 4 or x.shape[2] % high or x.shape[3] % wide:
            return super().forward(x)
        rows, columns = x.shape[2] // high, x.shape[3] // wide
        windows = x.unflatten(2, (rows, high)).unflatten(4, (columns, wide)).permute(0, 2, 4, 1, 3, 5).flatten(3)
        return _linear(windows, self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


class FrozenMlp(Mlp):
    """timm's MLP of a transformer block; without gradients, GELU is part of the first product."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., width) to the same."""
        first, act = self.fc1, self.act
        if (
            torch.is_grad_enabled()
            or self.training
            or torch.compiler.is_compiling()
            or type(first) is not FrozenLinear
            or not _takes(x, first.weight)
            or any(part._forward_hooks or part._forward_pre_hooks for part in (first, act, self.drop1, self.norm))
        ):
            whole: torch.Tensor = super().forward(x)  # type: ignore[no-untyped-call]
            return whole
        finish = onednn.GELU[str(act.approximate)]
        finished: torch.Tensor = self.fc2(onednn.product(x, first.weight, first.bias, finish))
        return finished


def cuts_patches(conv: nn.Conv2d) -> bool:
    """Its windows touch but do not overlap."""
    return (conv.stride, conv.padding, conv.dilation, conv.groups) == (conv.kernel_size, (0, 0), (1, 1), 1)


def _linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """`torch.nn.functional.linear`, through oneDNN where that can be."""
    gradient = torch.is_grad_enabled() and x.requires_grad
    # torch's compiler makes more of its own products where it can see into them, unless they are MKL's.
    if not _takes(x, weight) or (gradient and x.dtype != torch.float32 and torch.compiler.is_compiling()):
        return F.linear(x, weight, bias)
    return cast(torch.Tensor, _Product.apply(x, weight, bias)) if gradient else onednn.product(x, weight, bias)


def multiplies_small(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """So few numbers that torch's own product is the faster one."""
    return x.numel() * weight.shape[0] <= _SMALL


def _takes(x: torch.Tensor, weight: torch.Tensor) -> bool:
    return (
        x.device.type == weight.device.type == "cpu"
        and x.dtype == weight.dtype
        and x.dtype in _TYPES
        and not multiplies_small(x, weight)
        and not (weight.requires_grad and torch.is_grad_enabled())
        and not torch.is_autocast_enabled("cpu")
    )


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.weight = weight  # no input's gradient needs x, and the weight is not changed in place
        return onednn.product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        if torch.is_grad_enabled():  # create_graph=True: leave it to autograd
            return grad @ ctx.weight, None, None
        return onednn.product(grad, ctx.weight.t(), None), None, None
