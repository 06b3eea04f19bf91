"""The patches that a vision transformer cuts an image into, as masks over its pixels."""

import torch
from jaxtyping import Float

from robustbench_twicing.tensors import Images

Grid = Float[torch.Tensor, "batch rows columns"]


def patch_size(network: torch.nn.Module) -> tuple[int, int]:
    """Height and width of a network's patches in pixels; 16 where it does not say."""
    for module in network.modules():
        size = getattr(getattr(module, "patch_embed", None), "patch_size", None)
        if isinstance(size, tuple) and len(size) == 2:
            return size
    return 16, 16


def patch_grid(network: torch.nn.Module, images: Images) -> tuple[int, int]:
    """Rows and columns of whole patches."""
    height, width = patch_size(network)
    return images.shape[2] // height, images.shape[3] // width


def over_pixels(network: torch.nn.Module, grid: Grid) -> torch.Tensor:
    """(batch, 1, H, W): the value of each pixel's patch."""
    height, width = patch_size(network)
    return grid[:, None].repeat_interleave(height, 2).repeat_interleave(width, 3)
