"""Linear filters that several corruptions share. Batched, on the device of the images, float32.

Every product below has the shape of one image, whatever the batch, so that an image's result does not depend on its
batch mates, not even in the last bit.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch.nn import functional

from robustbench_twicing.engine.corruptions.levels import truncate_
from robustbench_twicing.spec.corruptions import Number
from robustbench_twicing.tensors import Images

Planes = Float[torch.Tensor, "batch height width"]

# --- filters along the axes ------------------------------------------------------------------------------------------

Band = tuple[tuple[slice, torch.Tensor], ...]
"""A matrix that is zero far from its diagonal, in strips of rows: the columns a strip needs, and its dense rest."""

_STRIP = 16  # rows; of 8, 16, 32 and 56 the fastest overall for 224 pixels on an AVX2 CPU


@lru_cache(maxsize=256)
def band(build: Callable[..., np.ndarray], arguments: tuple[Number | str, ...], device: torch.device) -> Band:
    """The strips of the matrix (new size, old size) that `build(*arguments)` gives, on `device`.

    As a matrix a filter has its border rule for nothing, and products of matrices are what every device is good at.
    """
    matrix = build(*arguments)
    strips = []
    for top in range(0, len(matrix), _STRIP):
        rows = matrix[top : top + _STRIP]
        used = np.flatnonzero(rows.any(axis=0))
        columns = slice(int(used[0]), int(used[-1]) + 1)
        strips.append((columns, torch.from_numpy(rows[:, columns].astype(np.float32)).to(device)))
    return tuple(strips)


def down(planes: Planes, matrix: Band) -> torch.Tensor:
    """matrix · plane for every plane: the filter along columns."""
    return torch.cat([torch.bmm(block.expand(len(planes), -1, -1), planes[:, rows]) for rows, block in matrix], dim=1)


def across(planes: Planes, matrix: Band) -> torch.Tensor:
    """plane · matrixᵀ for every plane: the filter along rows."""
    parts = [torch.bmm(planes[:, :, columns], block.T.expand(len(planes), -1, -1)) for columns, block in matrix]
    return torch.cat(parts, dim=2)


def gaussian_blur(images: torch.Tensor, sigma: Number, mode: str = "nearest", truncate: Number = 4.0) -> torch.Tensor:
    """Gaussian blur of every plane of (..., height, width), as scikit-image's `gaussian` (which calls scipy's).

    The kernel ends at `truncate` sigmas. Beyond the border, `mode="nearest"` repeats the last pixel and
    `mode="reflect"` mirrors the picture, last pixel included, as often as needed.
    """
    if int(truncate * sigma + 0.5) == 0:  # a kernel of one pixel
        return images
    height, width = images.shape[-2:]
    blurred = down(images.reshape(-1, height, width), band(_gaussian, (height, sigma, mode, truncate), images.device))
    return across(blurred, band(_gaussian, (width, sigma, mode, truncate), images.device)).view_as(images)


def _gaussian(size: int, sigma: Number, mode: str, truncate: Number) -> np.ndarray:
    radius = int(truncate * sigma + 0.5)
    steps = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (steps / sigma) ** 2)
    weights /= weights.sum()
    sources = np.arange(size)[:, None] + steps
    if mode == "nearest":
        sources = sources.clip(0, size - 1)
    else:
        sources %= 2 * size
        sources = np.minimum(sources, 2 * size - 1 - sources)
    matrix = np.zeros((size, size))
    np.add.at(matrix, (np.arange(size)[:, None], sources), weights)
    return matrix


def clipped_zoom(planes: Planes, factor: Number, height: int, width: int) -> torch.Tensor:
    """The centre of every plane, enlarged by `factor` to (height, width) by linear interpolation.

    `planes` (batch, height, width), or only what stays visible, (batch, zoom_window(height), zoom_window(width)).
    As the original: scipy.ndimage.zoom of order 1 (first and last pixel keep their place) of the centre, then a centred
    trim of what is more than the original size. Each axis by itself, so rectangles keep their shape.
    """
    zoomed = down(planes, band(_zoom, (planes.shape[1], height, factor), planes.device))
    return across(zoomed, band(_zoom, (planes.shape[2], width, factor), planes.device))


def zoom_window(size: int, factor: Number) -> int:
    """Pixels of one axis that stay visible when it is zoomed by `factor`."""
    return math.ceil(size / factor)


def _zoom(old: int, new: int, factor: Number) -> np.ndarray:
    window = zoom_window(new, factor)
    large = round(window * factor)  # scipy rounds half to even, as Python does
    places = (np.arange(new) + (large - new) // 2) * (window - 1) / (large - 1)
    before = places.astype(np.int64).clip(0, window - 2)
    first = (old - window) // 2 + before
    matrix = np.zeros((new, old))
    matrix[np.arange(new), first] = 1 - (places - before)
    matrix[np.arange(new), first + 1] = places - before
    return matrix


def box_resized(levels: Planes, height: int, width: int) -> torch.Tensor:
    """What Pillow's `resize(..., BOX)` makes of 8-bit planes: along rows first, rounded, then along columns, rounded.

    Its box is not weighted by coverage: a result pixel is the plain mean of the whole pixels within half a step.
    """
    return _boxed(_boxed(levels, 2, width), 1, height)


def _boxed(levels: torch.Tensor, axis: int, size: int) -> torch.Tensor:
    steps, counts = _boxes(levels.shape[axis], size, levels.device)
    if axis == 1:
        counts = counts[:, None]
    total = _picked(levels, axis, steps[0][0])
    if len(steps) == 1:
        return total
    for place, counted in steps[1:]:
        total.addcmul_(_picked(levels, axis, place), counted if axis == 2 else counted[:, None])
    # A mean of 2 or 4 levels is exact, and one of 3 or 5 never close to a half.
    return total.div_(counts).add_(0.5 + 2**-12).floor_()


def _picked(levels: torch.Tensor, axis: int, places: torch.Tensor) -> torch.Tensor:
    """The rows (`axis` 1) or columns (2) at `places`. Each is the fastest way to it on a CPU, by factors."""
    if axis == 1:
        return levels.index_select(1, places)
    return levels.gather(2, places.expand(*levels.shape[:2], -1))


@lru_cache(maxsize=64)
def _boxes(old: int, new: int, device: torch.device) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], torch.Tensor]:
    """For the first, second, ... pixel of all boxes: which it is, and 1 where the box has so many; and how many it has.

    Source: Pillow `src/libImaging/Resample.c`, precompute_coeffs.
    """
    scale = max(old / new, 1.0)
    centres = (np.arange(new) + 0.5) * (old / new)
    first = np.maximum((centres - scale / 2 + 0.5).astype(np.int64), 0)[:, None]
    last = np.minimum((centres + scale / 2 + 0.5).astype(np.int64), old)[:, None]
    # The filter itself is 1 on (-0.5, 0.5] and 0 elsewhere, so a pixel just at the start of a box does not count.
    places = (np.arange(old) - centres[:, None] + 0.5) / scale
    inside = (np.arange(old) >= first) & (np.arange(old) < last) & (places > -0.5) & (places <= 0.5)
    counts = inside.sum(axis=1)
    steps = []
    for step in range(counts.max()):
        place = torch.from_numpy(np.minimum(inside.argmax(axis=1) + step, old - 1))
        counted = torch.from_numpy((counts > step).astype(np.float32))
        steps.append((place.to(device), counted.to(device)))
    return steps, torch.from_numpy(counts.astype(np.float32)).to(device)


# --- other filters ---------------------------------------------------------------------------------------------------


def correlate(images: Images, kernel: np.ndarray) -> Images:
    """Correlation with a square odd `kernel`, the picture mirrored about its border pixels (OpenCV's default border).

    By the fast Fourier transform: the cost does not grow with the kernel.
    """
    radius = len(kernel) // 2
    height, width = images.shape[-2:]
    mirrored = functional.pad(images, (radius,) * 4, mode="reflect")
    shape = _fast_length(height + 2 * radius), _fast_length(width + 2 * radius)
    spectrum = torch.fft.rfft2(mirrored, s=shape)
    spectrum *= _spectrum(kernel.astype(np.float32).tobytes(), len(kernel), shape, images.device)
    result: torch.Tensor = torch.fft.irfft2(spectrum, s=shape)[..., :height, :width]
    return result


@lru_cache(maxsize=32)
def _spectrum(kernel: bytes, side: int, shape: tuple[int, int], device: torch.device) -> torch.Tensor:
    # Correlation is convolution with the conjugate. The output pixel then stands at the kernel's first corner.
    values = np.frombuffer(kernel, np.float32).reshape(side, side)
    return torch.from_numpy(np.fft.rfft2(values.astype(np.float64), shape).conj().astype(np.complex64)).to(device)


def _fast_length(size: int) -> int:
    """The next even size with no prime factor above 5."""
    size += size % 2
    while True:
        rest = size
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return size
        size += 2


def motion_taps(radius: Number, sigma: Number, degrees: Number) -> list[tuple[int, int, float]]:
    """(down, right, weight) of the pixels that ImageMagick's motion blur averages; the weights sum to one.

    Half a Gaussian along a ray from the pixel at `degrees` (0 is to the right, 90 downwards). Source: ImageMagick
    `MagickCore/effect.c` (MotionBlurImage, GetMotionBlurKernel) and `gem.c` (GetOptimalKernelWidth1D).
    """
    width = 2 * math.ceil(radius) + 1
    weights = [math.exp(-step * step / (2.0 * sigma * sigma)) for step in range(width)]
    total = sum(weights)
    dy, dx = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    return [
        (math.ceil(step * dy - 0.5), math.ceil(step * dx - 0.5), weight / total) for step, weight in enumerate(weights)
    ]


def motion_blur(images: torch.Tensor, radius: Number, sigma: Number, degrees: list[float]) -> torch.Tensor:
    """ImageMagick's motion blur of (batch, channels, height, width), each image along its own direction.

    Beyond the border the last pixel repeats. Values are truncated to whole levels, as the original generator's are:
    run beside it, 99.8 % of its values are the floor of ours, and rounding lay half a level above them on average.
    """
    height, width = images.shape[-2:]
    reach = 2 * math.ceil(radius)
    padded = functional.pad(images, (reach,) * 4, mode="replicate")
    blurred = torch.zeros_like(images)
    for source, target, angle in zip(padded, blurred, degrees, strict=True):
        for below, right, weight in motion_taps(radius, sigma, angle):
            top, left = reach + below, reach + right
            target.add_(source[:, top : top + height, left : left + width], alpha=weight)
    return truncate_(blurred)
