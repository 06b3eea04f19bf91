"""Blur: out of focus, behind rough glass, in motion."""

import math
from functools import lru_cache

import numpy as np
import torch

from robustbench_twicing.engine.corruptions.filters import clipped_zoom, correlate, motion_blur as blur_along
from robustbench_twicing.engine.corruptions.filters import gaussian_blur as blur
from robustbench_twicing.engine.corruptions.levels import truncated
from robustbench_twicing.engine.corruptions.parameters import Number
from robustbench_twicing.seeding import Draws
from robustbench_twicing.tensors import Images


def gaussian_blur(levels: Images, sigma: Number, draws: Draws) -> Images:
    """Gaussian blur, the last pixel repeated beyond the border."""
    return blur(levels, sigma)


def defocus_blur(levels: Images, disk: tuple[Number, Number], draws: Draws) -> Images:
    """Correlation with a disk of a radius in pixels, its rim softened by a sigma; mirrored at the border."""
    return correlate(levels, _disk(*disk))


@lru_cache(maxsize=32)
def _disk(radius: Number, sigma: Number) -> np.ndarray:
    """The original's kernel: a disk of 0 and 1, made to sum to one, then OpenCV's GaussianBlur of 3 (or 5) pixels.

    Quirks kept: the kernel has 17 pixels a side up to radius 8, and the softening mirrors at its border, so at radius 8
    and 10 the rim's weights differ slightly from a softened disk on a larger canvas.
    """
    half, reach = (8, 1) if radius <= 8 else (math.floor(radius), 2)
    x = np.arange(-half, half + 1)
    disk = (x[:, None] ** 2 + x**2 <= radius**2).astype(np.float64)
    disk /= disk.sum()
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights /= weights.sum()
    for _ in range(2):
        mirrored = np.pad(disk, ((reach, reach), (0, 0)), mode="reflect")
        disk = sum(weight * mirrored[step : step + len(x)] for step, weight in enumerate(weights)).T
    return disk


def glass_blur(levels: Images, glass: tuple[Number, int, int], draws: Draws) -> Images:
    """Blurs, moves pixels about within `reach`, in several rounds, and blurs again.

    The original walks over the picture from its lower right corner and "swaps" each pixel with a random near one. Its
    swap is a copy: the near pixel's colour is written over the pixel, and nothing is written back. ImageNet-C was made
    so, and so is this (make_imagenet_c.py line 309).

    Each pixel therefore takes over one other pixel, in its new state if the walk has passed it, else in its old. That
    is a forest of pointers; following all of them at once, doubling the stride, gives exactly the result of the walk.
    """
    sigma, reach, rounds = glass
    batch, _, height, width = levels.shape
    blurred = truncated(blur(levels, sigma))
    source = None
    for index in range(rounds):
        moved = _walk(draws, index, reach, height, width, levels.device)
        # The first round takes from the picture, each later one from the result of the round before.
        source = moved if source is None else source.gather(1, moved)
    assert source is not None
    red, green, blue = blurred.to(torch.int32).flatten(2).unbind(1)
    colours = (red + (green << 8) + (blue << 16)).gather(1, source)
    shuffled = torch.stack((colours & 255, (colours >> 8) & 255, colours >> 16), dim=1)
    return blur(shuffled.to(torch.float32).view_as(levels), sigma)


def _walk(draws: Draws, index: int, reach: int, height: int, width: int, device: torch.device) -> torch.Tensor:
    """(samples, height * width) int64: where the colour of each pixel stood before one round of the walk."""
    choices = 2 * reach  # steps from -reach to reach - 1, both ways
    draw = draws.uniform(index, (height, width), device).mul_(choices * choices).to(torch.int64)
    place = torch.arange(height * width, device=device).view(height, width)
    offsets = torch.arange(-reach, reach, device=device)
    target = place + (offsets[:, None] * width + offsets).flatten()[draw]
    # The walk leaves out the border: rows and columns up to `reach`, and the last reach - 1.
    rows = torch.arange(height, device=device)
    columns = torch.arange(width, device=device)
    walked = ((rows > reach) & (rows <= height - reach))[:, None] & ((columns > reach) & (columns <= width - reach))
    target = torch.where(walked, target, place).flatten(1)
    # Going from the lower right, a pixel further down (or right of it) has been walked over before, if at all.
    passed = (target > place.flatten()) & walked.flatten()[target]
    while bool(passed.any()):
        target, passed = (
            torch.where(passed, target.gather(1, target), target),
            passed & passed.gather(1, target),
        )
    return target


def motion_blur(levels: Images, motion: tuple[Number, Number], draws: Draws) -> Images:
    """Motion blur at a random angle within 45 degrees of the horizontal, one for each image."""
    angles = draws.uniform(0, (1,))[:, 0].to(torch.float64) * 90 - 45
    return blur_along(levels, *motion, angles.tolist())


def zoom_blur(levels: Images, factors: tuple[Number, ...], draws: Draws) -> Images:
    """The mean of the picture and its centred enlargements by each of `factors`; the picture counts once more."""
    total = levels.clone()
    for factor in factors:
        total += clipped_zoom(levels, factor, *levels.shape[-2:])
    return total.div_(len(factors) + 1)
