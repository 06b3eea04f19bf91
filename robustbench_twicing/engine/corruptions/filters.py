"""Linear filters that several corruptions share. Batched, on the device of the images, float32.

Every product below has the shape of one image, whatever the batch, so that an image's result does not depend on its
batch mates, not even in the last bit.
"""

import math
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch.nn import functional

from robustbench_twicing.engine.corruptions.parameters import Number
from robustbench_twicing.tensors import Images

Planes = Float[torch.Tensor, "batch height width"]


def gaussian_blur(images: Images | Planes, sigma: Number, mode: str = "nearest", truncate: Number = 4.0) -> torch.Tensor:
    """Gaussian blur of every channel, as scikit-image's `gaussian` (which calls scipy's `gaussian_filter`).

    The kernel ends at `truncate` sigmas. Beyond the border, `mode="nearest"` repeats the last pixel and
    `mode="reflect"` mirrors the picture, last pixel included, as often as needed.
    """
    if int(truncate * sigma + 0.5) == 0:  # a kernel of one pixel
        return images
    height, width = images.shape[-2:]
    planes = images.reshape(-1, height, width)
    down = _gaussian_matrix(height, float(sigma), mode, truncate, images.device)
    across = _gaussian_matrix(width, float(sigma), mode, truncate, images.device).T
    blurred = torch.bmm(down.expand(len(planes), -1, -1), planes)
    return torch.bmm(blurred, across.expand(len(planes), -1, -1)).view_as(images)


@lru_cache(maxsize=32)
def _gaussian_matrix(size: int, sigma: Number, mode: str, truncate: Number, device: torch.device) -> torch.Tensor:
    """(size, size): the blur of one axis, border rule included, as a matrix. Rows sum to one.

    On matrix units a dense product beats a convolution with a long kernel, and the border costs nothing.
    """
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
    return torch.from_numpy(matrix.astype(np.float32)).to(device)


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
    return torch.fft.irfft2(spectrum, s=shape)[..., :height, :width]


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


def motion_blur(images: torch.Tensor, radius: Number, sigma: Number, degrees: list[Number]) -> torch.Tensor:
    """ImageMagick's motion blur of (batch, channels, height, width), each image along its own direction.

    Beyond the border the last pixel repeats. Values are rounded to whole levels, as ImageMagick's 8-bit output is.
    """
    height, width = images.shape[-2:]
    reach = 2 * math.ceil(radius)
    padded = functional.pad(images, (reach,) * 4, mode="replicate")
    blurred = torch.empty_like(images)
    for source, target, angle in zip(padded, blurred, degrees, strict=True):
        taps = motion_taps(radius, sigma, angle)
        for index, (down, right, weight) in enumerate(taps):
            shifted = source[:, reach + down : reach + down + height, reach + right : reach + right + width]
            if index == 0:
                torch.mul(shifted, weight, out=target)
            else:
                target.add_(shifted, alpha=weight)
    return blurred.add_(0.5).floor_()


def clipped_zoom(images: torch.Tensor, factor: Number, height: int, width: int) -> torch.Tensor:
    """The centre of (batch, channels, ...) planes, enlarged by `factor` to (height, width) by linear interpolation.

    `images` holds either whole planes of (height, width) or, already cut, their centre of `zoom_window`.
    As the original: scipy.ndimage.zoom of order 1 (first and last pixel keep their place) of the centre, then a centred
    trim of what is more than the original size. Each axis by itself, so rectangles keep their shape.
    """
    rows, columns = zoom_window(height, factor), zoom_window(width, factor)
    top, left = (images.shape[-2] - rows) // 2, (images.shape[-1] - columns) // 2
    centre = images[..., top : top + rows, left : left + columns]
    size = round(rows * factor), round(columns * factor)  # scipy rounds half to even, as Python does
    enlarged = functional.interpolate(centre, size, mode="bilinear", align_corners=True)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return enlarged[..., top : top + height, left : left + width]


def zoom_window(size: int, factor: Number) -> int:
    """Pixels of one axis that remain visible after zooming by `factor`."""
    return math.ceil(size / factor)
