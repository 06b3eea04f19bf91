"""Digital: contrast, elastic deformation, large pixels, JPEG; and saturation."""

import math
from functools import lru_cache

import numpy as np
import torch
from torch.nn import functional

from robustbench_twicing.engine.corruptions.filters import Planes
from robustbench_twicing.engine.corruptions.filters import gaussian_blur as blur
from robustbench_twicing.engine.corruptions.jpeg import jpeg_round_trip
from robustbench_twicing.engine.corruptions.parameters import Number
from robustbench_twicing.seeding import Draws
from robustbench_twicing.tensors import Images


def contrast(levels: Images, kept: Number, draws: Draws) -> Images:
    """Moves every value towards the mean of its channel; the share `kept` of the distance stays."""
    # In float64 a sum of whole levels is exact, whatever its order.
    means = levels.mean((2, 3), keepdim=True, dtype=torch.float64)
    return (levels * kept).add_((means * (1 - kept)).to(torch.float32))


def elastic_transform(levels: Images, elastic: tuple[Number, Number, Number], draws: Draws) -> Images:
    """Two warps, one after the other: a random affine map, then a smooth random displacement of every pixel.

    Both interpolate linearly. The affine map moves three points near the centre by up to `jitter` pixels; beyond the
    border the picture is mirrored, about the border pixels in the first warp and about the border itself in the second.
    """
    strength, sigma, jitter = elastic
    height, width = levels.shape[-2:]
    maps = _affine_maps(draws, height, width, jitter).to(levels.device)
    x = torch.arange(width, dtype=torch.float32, device=levels.device)
    y = torch.arange(height, dtype=torch.float32, device=levels.device)[:, None]
    columns, rows = (
        (maps[:, axis, 0, None, None] * x).add(maps[:, axis, 1, None, None] * y).add_(maps[:, axis, 2, None, None])
        for axis in (0, 1)
    )
    warped = _sample(levels, rows, columns, mirror_border_pixel=True)
    if strength == 0:
        return warped
    field = draws.uniform(1, (2, height, width), levels.device).mul_(2).sub_(1).flatten(0, 1)
    moves = blur(field, sigma, mode="reflect", truncate=3.0).view(-1, 2, height, width).mul_(strength)
    return _sample(warped, moves[:, 1] + y, moves[:, 0] + x, mirror_border_pixel=False)


def _affine_maps(draws: Draws, height: int, width: int, jitter: Number) -> torch.Tensor:
    """(samples, 2, 3): where (x, y, 1) of the result stands in the picture, as x and as y."""
    middle = np.array((width // 2, height // 2), dtype=np.float64)
    third = min(height, width) // 3
    old = middle + third * np.array(((1, 1), (1, -1), (-1, -1)))
    new = old + (draws.uniform(0, (3, 2)).to(torch.float64).numpy() * 2 - 1) * jitter
    # Rows of (x, y, 1) times the transposed map give the points; solve for the map from new points to old.
    corners = np.concatenate((new, np.ones((*new.shape[:2], 1))), axis=2)
    maps = np.linalg.solve(corners, np.broadcast_to(old, new.shape)).transpose(0, 2, 1)
    return torch.from_numpy(maps.astype(np.float32))


def _sample(levels: Images, rows: Planes, columns: Planes, mirror_border_pixel: bool) -> Images:
    """The picture at fractional (row, column), linearly interpolated and mirrored beyond the border."""
    height, width = levels.shape[-2:]
    if mirror_border_pixel:
        grid = torch.stack((columns * (2 / (width - 1)) - 1, rows * (2 / (height - 1)) - 1), dim=-1)
    else:
        grid = torch.stack(((2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1), dim=-1)
    return functional.grid_sample(levels, grid, "bilinear", "reflection", align_corners=mirror_border_pixel)


def pixelate(levels: Images, scale: Number, draws: Draws) -> Images:
    """Shrinks the picture and enlarges it again, both with Pillow's BOX filter."""
    height, width = levels.shape[-2:]
    return box_resized(box_resized(levels, int(height * scale), int(width * scale)), height, width)


def box_resized(levels: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """What Pillow's `resize(..., BOX)` makes of an 8-bit picture: rows first, rounded, then columns, rounded.

    Its box is not weighted by coverage: a result pixel is the plain mean of the whole pixels within half a step.
    """
    across = _box_mean(levels.transpose(2, 3), width)
    return _box_mean(across.transpose(2, 3), height)


def _box_mean(levels: torch.Tensor, size: int) -> torch.Tensor:
    """The third axis resampled to `size`."""
    first, counts = _boxes(levels.shape[2], size)
    most = int(counts.max())
    if most == 1:
        return levels.index_select(2, torch.from_numpy(first).to(levels.device))
    levels = levels.contiguous()
    total = levels.index_select(2, torch.from_numpy(first).to(levels.device))
    for step in range(1, most):
        weights = torch.from_numpy((counts > step).astype(np.float32))[:, None].to(levels.device)
        total.addcmul_(levels.index_select(2, torch.from_numpy(first + np.minimum(step, counts - 1)).to(levels.device)), weights)
    return total.div_(torch.from_numpy(counts.astype(np.float32))[:, None].to(levels.device)).add_(0.5).floor_()


@lru_cache(maxsize=64)
def _boxes(old: int, new: int) -> tuple[np.ndarray, np.ndarray]:
    """First pixel and number of pixels of each box. Source: Pillow `src/libImaging/Resample.c`, precompute_coeffs."""
    scale = old / new
    support = 0.5 * max(scale, 1.0)
    centres = (np.arange(new) + 0.5) * scale
    first = np.maximum((centres - support + 0.5).astype(np.int64), 0)
    last = np.minimum((centres + support + 0.5).astype(np.int64), old)
    # The filter itself is 1 on (-0.5, 0.5] and 0 elsewhere, so a pixel just at the box's start does not count.
    place = (first - centres + 0.5) / max(scale, 1.0)
    first = np.where(place <= -0.5, first + 1, first)
    place = (last - 1 - centres + 0.5) / max(scale, 1.0)
    last = np.where(place > 0.5, last - 1, last)
    return first, last - first


def jpeg_compression(levels: Images, quality: int, draws: Draws) -> Images:
    """Encoded as JPEG at `quality` and decoded again."""
    return jpeg_round_trip(levels, quality)


def saturate(levels: Images, change: tuple[Number, Number], draws: Draws) -> Images:
    """Multiplies the saturation of HSV and adds to it, from 0 to 1. Value and hue stay.

    Quirk kept: greys have no hue, which scikit-image writes as red, so an added saturation tints them red.
    """
    factor, offset = change
    value = levels.amax(1, keepdim=True)
    spread = value - levels.amin(1, keepdim=True)
    saturation = (spread / value.clamp(min=1.0) * factor).add_(offset).clamp_(0, 1)
    # Each channel's distance from the largest, as a share of the spread; for grey, the distances of red.
    below = (value - levels).div_(spread.clamp(min=1.0))
    if offset:
        red = torch.tensor((0.0, 1.0, 1.0), device=levels.device).view(3, 1, 1)
        below = torch.where(spread == 0, red, below)
    return value - below.mul_(saturation * value)
