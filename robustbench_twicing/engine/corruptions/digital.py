"""Digital: contrast, elastic deformation, large pixels, JPEG; and saturation."""

import numpy as np
import torch
from torch.nn import functional

from robustbench_twicing.engine.corruptions.filters import Planes, box_resized
from robustbench_twicing.engine.corruptions.filters import gaussian_blur as blur
from robustbench_twicing.engine.corruptions.jpeg import jpeg_round_trip
from robustbench_twicing.engine.corruptions.levels import truncate_
from robustbench_twicing.seeding import Draws
from robustbench_twicing.spec.corruptions import Number
from robustbench_twicing.tensors import Images


def contrast(levels: Images, kept: Number, draws: Draws) -> Images:
    """Moves every value towards the mean of its channel; the share `kept` of the distance stays."""
    # In float64 a sum of whole levels is exact, whatever its order.
    means = levels.mean((2, 3), keepdim=True, dtype=torch.float64)
    return truncate_(levels.mul_(kept).add_((means * (1 - kept)).to(torch.float32)))


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
        return truncate_(warped)
    field = draws.uniform(1, (2, height, width), levels.device).mul_(2).sub_(1).flatten(0, 1)
    moves = blur(field, sigma, mode="reflect", truncate=3.0).view(-1, 2, height, width).mul_(strength)
    return truncate_(_sample(warped, moves[:, 1] + y, moves[:, 0] + x, mirror_border_pixel=False))


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
    small = box_resized(levels.flatten(0, 1), int(height * scale), int(width * scale))
    return box_resized(small, height, width).view_as(levels)


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
    return truncate_(value - below.mul_(saturation.mul_(value)))
