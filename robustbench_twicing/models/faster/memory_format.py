"""How convolutional networks keep their feature maps in memory: channel by channel, or pixel by pixel."""

from collections.abc import Sequence

import torch
from torch import nn

from robustbench_twicing.errors import unknown_name
from robustbench_twicing.models.faster.onednn_layers import cuts_patches

MEMORY_FORMATS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}
"""Channel by channel, as torch makes a network, or pixel by pixel, as oneDNN and tensor cores take them."""


def convolves(network: nn.Module) -> bool:
    """Has convolutions other than patch embeddings, so that the memory format matters to it."""
    return any(isinstance(module, nn.Conv2d) and not cuts_patches(module) for module in network.modules())


def set_memory_format(networks: Sequence[nn.Module], memory_format: str) -> None:
    """Lay the weights of `networks` out so, in place: convolutions then make their feature maps in the same format.

    Values, shapes and state-dict keys stay; logits differ in their last bits. Raises `UserError` for an unknown format.
    """
    if memory_format not in MEMORY_FORMATS:
        raise unknown_name("memory format", memory_format, MEMORY_FORMATS)
    for network in networks:
        network.to(memory_format=MEMORY_FORMATS[memory_format])
