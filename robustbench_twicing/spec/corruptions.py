"""Every corruption: its family, the function that computes it, and its five severities. No torch.

Sources of the severities: hendrycks/robustness 8190fe3, `ImageNet-C/create_c/`: `make_cifar_c.py` (32 pixels),
`make_tinyimagenet_c.py` (64) and `make_imagenet_c.py` (224). Only the numbers are taken over.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

SEVERITIES = (1, 2, 3, 4, 5)

Number = float | int
"""A parameter that may be fractional, written as the original wrote it."""


class Corruption(NamedTuple):
    """One corruption."""

    family: str
    function: str
    """`FILE.FUNCTION` in engine/corruptions/: (levels, setting, draws) to whole levels; may write over `levels`."""
    settings: Mapping[int, tuple[Any, ...]]
    """By the side of the images in pixels, for one size or several: what the function takes at severities 1 to 5."""

    def setting(self, severity: int, height: int, width: int) -> Any:
        """What the function takes at one severity for images of this size."""
        return self.settings[nearest_size(self.settings, height, width)][severity - 1]


def nearest_size(sizes: Iterable[int], height: int, width: int) -> int:
    """Of `sizes` the one nearest to the shorter side, as a ratio.

    Of 32, 64 and 224 it is 32 up to 45 pixels, 64 up to 119, 224 from 120 on; the borders are √(32·64) and √(64·224).
    """
    side = min(height, width)
    return min(sizes, key=lambda size: max(side / size, size / side))


def _zooms(*stops_and_steps: tuple[float, float]) -> tuple[tuple[float, ...], ...]:
    # Rounding decides whether numpy's arange includes its stop, and the original's factors are what it gave:
    # np.arange(1, 1.11, 0.01) ends at 1.11, np.arange(1, 1.16, 0.01) at 1.15.
    return tuple(tuple(np.arange(1, stop, step).tolist()) for stop, step in stops_and_steps)


_FINE_ZOOMS = _zooms((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01))

CORRUPTIONS: Mapping[str, Corruption] = {
    "gaussian_noise": Corruption(
        "noise",
        "noise.gaussian_noise",
        # standard deviation, in units of the pixel range
        {
            32: (0.04, 0.06, 0.08, 0.09, 0.10),
            64: (0.04, 0.08, 0.12, 0.15, 0.18),
            224: (0.08, 0.12, 0.18, 0.26, 0.38),
        },
    ),
    "shot_noise": Corruption(
        "noise",
        "noise.shot_noise",
        # photons at full brightness
        {
            32: (500, 250, 100, 75, 50),
            64: (250, 100, 50, 30, 15),
            224: (60, 25, 12, 5, 3),
        },
    ),
    "impulse_noise": Corruption(
        "noise",
        "noise.impulse_noise",
        # share of values replaced
        {
            32: (0.01, 0.02, 0.03, 0.05, 0.07),
            64: (0.01, 0.02, 0.05, 0.08, 0.14),
            224: (0.03, 0.06, 0.09, 0.17, 0.27),
        },
    ),
    "defocus_blur": Corruption(
        "blur",
        "blur.defocus_blur",
        # radius of the disk, sigma of its anti-aliasing
        {
            32: ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
            64: ((0.5, 0.6), (1, 0.1), (1.5, 0.1), (2.5, 0.01), (3, 0.1)),
            224: ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
        },
    ),
    "glass_blur": Corruption(
        "blur",
        "blur.glass_blur",
        # sigma of the blur, reach of a swap, rounds
        {
            32: ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
            64: ((0.1, 1, 1), (0.5, 1, 1), (0.6, 1, 2), (0.7, 2, 1), (0.9, 2, 2)),
            224: ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
        },
    ),
    "motion_blur": Corruption(
        "blur",
        "blur.motion_blur",
        # radius, sigma
        {
            32: ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
            64: ((10, 1), (10, 1.5), (10, 2), (10, 2.5), (12, 3)),
            224: ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
        },
    ),
    "zoom_blur": Corruption(
        "blur",
        "blur.zoom_blur",
        # zoom factors
        {
            32: _FINE_ZOOMS,
            64: _FINE_ZOOMS,
            224: _zooms((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
        },
    ),
    "snow": Corruption(
        "weather",
        "weather.snow",
        # mean and deviation of the flakes, their zoom, threshold, motion radius and sigma, share of the picture
        {
            32: (
                (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
                (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
                (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
                (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
                (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
            ),
            64: (
                (0.1, 0.2, 1, 0.6, 8, 3, 0.8),
                (0.1, 0.2, 1, 0.5, 10, 4, 0.8),
                (0.15, 0.3, 1.75, 0.55, 10, 4, 0.7),
                (0.25, 0.3, 2.25, 0.6, 12, 6, 0.65),
                (0.3, 0.3, 1.25, 0.65, 14, 12, 0.6),
            ),
            224: (
                (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
                (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
                (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
                (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
                (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
            ),
        },
    ),
    "frost": Corruption(
        "weather",
        "weather.frost",
        # weight of the picture, weight of the frost, scale of the frost picture
        {
            32: ((1, 0.2, 0.2), (1, 0.3, 0.2), (0.9, 0.4, 0.2), (0.85, 0.4, 0.2), (0.75, 0.45, 0.2)),
            64: ((1, 0.3, 0.3), (0.9, 0.4, 0.3), (0.8, 0.45, 0.3), (0.75, 0.5, 0.3), (0.7, 0.55, 0.3)),
            224: ((1, 0.4, 1), (0.8, 0.6, 1), (0.7, 0.7, 1), (0.65, 0.7, 1), (0.6, 0.75, 1)),
        },
    ),
    "fog": Corruption(
        "weather",
        "weather.fog",
        # weight of the fog, decay of its roughness
        {
            32: ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
            64: ((0.4, 3), (0.7, 3), (1, 2.5), (1.5, 2), (2, 1.75)),
            224: ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
        },
    ),
    "brightness": Corruption(
        "weather",
        "weather.brightness",
        # added to the value of HSV
        {
            32: (0.05, 0.1, 0.15, 0.2, 0.3),
            64: (0.1, 0.2, 0.3, 0.4, 0.5),
            224: (0.1, 0.2, 0.3, 0.4, 0.5),
        },
    ),
    "contrast": Corruption(
        "digital",
        "digital.contrast",
        # share of the distance to the mean that stays
        {
            32: (0.75, 0.5, 0.4, 0.3, 0.15),
            64: (0.4, 0.3, 0.2, 0.1, 0.05),
            224: (0.4, 0.3, 0.2, 0.1, 0.05),
        },
    ),
    "elastic_transform": Corruption(
        "digital",
        "digital.elastic_transform",
        # strength and sigma of the displacement, reach of the affine jitter; all in pixels
        {
            32: tuple(
                (32 * a, 32 * b, 32 * c)
                for a, b, c in (
                    (0, 0, 0.08),
                    (0.05, 0.2, 0.07),
                    (0.08, 0.06, 0.06),
                    (0.1, 0.04, 0.05),
                    (0.1, 0.03, 0.03),
                )
            ),
            64: tuple(
                (64 * a, 64 * b, 64 * c)
                for a, b, c in (
                    (0, 0, 0.08),
                    (0.05, 0.3, 0.06),
                    (0.1, 0.08, 0.06),
                    (0.1, 0.03, 0.03),
                    (0.16, 0.03, 0.02),
                )
            ),
            # 244, not 224: the original says so itself and kept it.
            224: tuple(
                (244 * a, 244 * b, 244 * c)
                for a, b, c in (
                    (2, 0.7, 0.1),
                    (2, 0.08, 0.2),
                    (0.05, 0.01, 0.02),
                    (0.07, 0.01, 0.02),
                    (0.12, 0.01, 0.02),
                )
            ),
        },
    ),
    "pixelate": Corruption(
        "digital",
        "digital.pixelate",
        # size of the small picture
        {
            32: (0.95, 0.9, 0.85, 0.75, 0.65),
            64: (0.9, 0.8, 0.7, 0.6, 0.5),
            224: (0.6, 0.5, 0.4, 0.3, 0.25),
        },
    ),
    "jpeg_compression": Corruption(
        "digital",
        "digital.jpeg_compression",
        # JPEG quality
        {
            32: (80, 65, 58, 50, 40),
            64: (65, 58, 50, 40, 25),
            224: (25, 18, 15, 10, 7),
        },
    ),
    "speckle_noise": Corruption(
        "extra",
        "noise.speckle_noise",
        # standard deviation, as a share of the value
        {
            32: (0.06, 0.1, 0.12, 0.16, 0.2),
            64: (0.15, 0.2, 0.25, 0.3, 0.35),
            224: (0.15, 0.2, 0.35, 0.45, 0.6),
        },
    ),
    "gaussian_blur": Corruption(
        "extra",
        "blur.gaussian_blur",
        # sigma
        {
            32: (0.4, 0.6, 0.7, 0.8, 1),
            64: (0.5, 0.75, 1, 1.25, 1.5),
            224: (1, 2, 3, 4, 6),
        },
    ),
    "spatter": Corruption(
        "extra",
        "weather.spatter",
        # mean, deviation of the liquid, sigma of its blur, threshold, then water: strength, or mud: sigma of its edge
        {
            32: (
                (0.62, 0.1, 0.7, 0.7, 0.5, "water"),
                (0.65, 0.1, 0.8, 0.7, 0.5, "water"),
                (0.65, 0.3, 1, 0.69, 0.5, "water"),
                (0.65, 0.1, 0.7, 0.69, 0.6, "mud"),
                (0.65, 0.1, 0.5, 0.68, 0.6, "mud"),
            ),
            64: (
                (0.62, 0.1, 0.7, 0.7, 0.6, "water"),
                (0.65, 0.1, 0.8, 0.7, 0.6, "water"),
                (0.65, 0.3, 1, 0.69, 0.6, "water"),
                (0.65, 0.1, 0.7, 0.68, 0.6, "mud"),
                (0.65, 0.1, 0.5, 0.67, 0.6, "mud"),
            ),
            224: (
                (0.65, 0.3, 4, 0.69, 0.6, "water"),
                (0.65, 0.3, 3, 0.68, 0.6, "water"),
                (0.65, 0.3, 2, 0.68, 0.5, "water"),
                (0.65, 0.3, 1, 0.65, 1.5, "mud"),
                (0.67, 0.4, 1, 0.65, 1.5, "mud"),
            ),
        },
    ),
    "saturate": Corruption(
        "extra",
        "digital.saturate",
        # factor and offset of the saturation of HSV
        {
            32: ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
            64: ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (30, 0.2)),
            224: ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
        },
    ),
}
"""ImageNet-C's nineteen in its order, and whatever is added below them: one row here and its function. A corruption
that is added joins every generated suite as an extra one, under its family's name, outside of the mean over the suite
(`common_of` in corruptions/README.md)."""


def families(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Some corruptions by family, both in the order of the table."""
    wanted = set(names)
    found: dict[str, tuple[str, ...]] = {}
    for name, corruption in CORRUPTIONS.items():
        if name in wanted:
            found[corruption.family] = (*found.get(corruption.family, ()), name)
    return found
