"""Blur: out of focus, behind rough glass, in motion."""

import math
from functools import lru_cache

import numpy as np
import torch

from robustbench_twicing.engine.corruptions.filters import clipped_zoom, correlate
from robustbench_twicing.engine.corruptions.filters import gaussian_blur as blur
from robustbench_twicing.engine.corruptions.filters import motion_blur as blur_along
from robustbench_twicing.engine.corruptions.levels import truncate_
from robustbench_twicing.seeding import Draws
from robustbench_twicing.spec.corruptions import Number
from robustbench_twicing.tensors import Images


def gaussian_blur(levels: Images, sigma: Number, draws: Draws) -> Images:
    """Gaussian blur, the last pixel repeated beyond the border."""
    return truncate_(blur(levels, sigma))


def defocus_blur(levels: Images, disk: tuple[Number, Number], draws: Draws) -> Images:
    """Correlation with a disk of a radius in pixels, its rim softened by a sigma; mirrored at the border."""
    return truncate_(correlate(levels, _disk(*disk)))


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

    Each pixel therefore takes over one other pixel's colour: its new one if the walk has passed it, else its old one.
    Following these pointers, for all pixels at once, gives exactly the result of the walk.
    """
    sigma, reach, rounds = glass
    height, width = levels.shape[-2:]
    red, green, blue = truncate_(blur(levels, sigma)).to(torch.int32).unbind(1)
    colours = (red + (green << 8) + (blue << 16)).flatten()
    for index in range(rounds):
        colours = colours.index_select(0, _walk(draws, index, reach, height, width, levels.device))
    channels = [(colours >> shift & 255).view(-1, height, width).to(torch.float32) for shift in (0, 8, 16)]
    return truncate_(blur(torch.stack(channels, dim=1), sigma))


def _walk(draws: Draws, index: int, reach: int, height: int, width: int, device: torch.device) -> torch.Tensor:
    """(samples * height * width,) int32: whose colour each pixel of each sample has after one round of the walk."""
    samples, pixels, choices = len(draws.sample_ids), height * width, 2 * reach
    # The walk leaves out the border: rows and columns up to `reach`, and the last reach - 1.
    inner = (slice(None), slice(reach + 1, height - reach + 1), slice(reach + 1, width - reach + 1))
    # Down and right by -reach to reach - 1 each, from 16 random bits (the likeliest of 36 pairs is so by 1 in 1820).
    bits = draws.words(index, -(-pixels // 4), device).view(torch.int16)[:, :pixels].view(samples, height, width)[inner]
    pairs = (bits.to(torch.int32) & 0xFFFF).mul_(choices * choices) >> 16
    offsets = torch.arange(-reach, reach, dtype=torch.int32, device=device)
    moves = (offsets[:, None] * width + offsets).flatten().index_select(0, pairs.flatten()).view(pairs.shape)
    source = torch.arange(samples * pixels, dtype=torch.int32, device=device).view(samples, height, width)
    source[inner] += moves
    source = source.flatten()
    # Coming from the lower right, the walk has passed every inner pixel that stands further on.
    walked, onward = torch.zeros(2, samples, height, width, dtype=torch.bool, device=device)
    walked[inner] = True
    onward[inner] = moves > 0
    chain = onward.flatten().nonzero().squeeze(1)
    at = source.index_select(0, chain)
    passed = walked.flatten().index_select(0, at).nonzero().squeeze(1)
    chain, at = chain.index_select(0, passed), at.index_select(0, passed)
    # Pointers to passed pixels, which lead on to where those point, are marked by an excess of `marked`.
    marked = samples * pixels
    pointers = source.index_copy(0, chain, at + marked)
    while len(chain) > 0:  # each turn follows one more pointer; about a third of them lead on again
        at = pointers.index_select(0, at)
        source.index_copy_(0, chain, at)
        passed = (at >= marked).nonzero().squeeze(1)
        chain, at = chain.index_select(0, passed), at.index_select(0, passed) - marked
    return source


def motion_blur(levels: Images, motion: tuple[Number, Number], draws: Draws) -> Images:
    """Motion blur at a random angle within 45 degrees of the horizontal, one for each image."""
    angles = draws.uniform(0, (1,))[:, 0].to(torch.float64) * 90 - 45
    return blur_along(levels, *motion, angles.tolist())


def zoom_blur(levels: Images, factors: tuple[Number, ...], draws: Draws) -> Images:
    """The mean of the picture and its centred enlargements by each of `factors`; the picture counts once more."""
    total = levels.clone()
    for factor in factors:
        total += clipped_zoom(levels.flatten(0, 1), factor, *levels.shape[-2:]).view_as(levels)
    return truncate_(total.div_(len(factors) + 1))
