"""How convolutional networks keep their feature maps in memory: channel by channel, or pixel by pixel."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import nn

from robustbench_twicing.errors import UserError
from robustbench_twicing.models.frozen import cuts_patches

MemoryFormat = Literal["contiguous", "channels last"]
"""Channel by channel, as torch makes a network, or pixel by pixel, as oneDNN and tensor cores take them."""


def convolves(network: nn.Module) -> bool:
    """Has convolutions other than patch embeddings, so that the memory format matters to it."""
    return any(isinstance(module, nn.Conv2d) and not cuts_patches(module) for module in network.modules())


def set_memory_format(networks: Sequence[nn.Module], memory_format: str) -> None:
    """Lay the weights of `networks` out so, in place: convolutions then make their feature maps in the same format.

    Values, shapes and state-dict keys stay; logits differ in their last bits. Raises `UserError` for an unknown format.
    """
    if memory_format not in get_args(MemoryFormat):
        raise UserError(f"Unknown memory format {memory_format!r}.", f"Available: {', '.join(get_args(MemoryFormat))}.")
    for network in networks:
        last = memory_format == "channels last"
        network.to(memory_format=torch.channels_last if last else torch.contiguous_format)
