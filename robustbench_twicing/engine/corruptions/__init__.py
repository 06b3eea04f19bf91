"""Corruptions, batched, on the device of the images: ImageNet-C's nineteen (Hendrycks and Dietterich 2019, 1903.12261).

The table is `spec/corruptions.py`. What each does is written at its function; docs/corruptions.md compares them with
the original generator and its quirks. Results are `ImageNet-C (generated)`: never to be mixed with the published files.
"""

from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import torch

from robustbench_twicing.engine.corruptions.frost import FrostPictures, frost_pictures
from robustbench_twicing.engine.corruptions.jpeg import jpeg_round_trip
from robustbench_twicing.errors import UserError, unknown_name
from robustbench_twicing.machine.cores import on_every_core
from robustbench_twicing.machine.malloc import keep_freed_blocks
from robustbench_twicing.seeding import Draws
from robustbench_twicing.spec.corruptions import CORRUPTIONS, SEVERITIES, Corruption
from robustbench_twicing.tensors import Images

__all__ = ["FrostPictures", "corrupt", "frost_pictures"]

SMALLEST_SIDE = 32


def corrupt(
    images: torch.Tensor | np.ndarray,
    name: str,
    severity: int,
    seed: int = 0,
    ids: Sequence[str] | None = None,
    jpeg_quality: int | None = None,
    frost_dir: str | Path | None = None,
) -> Images:
    """`images` with one corruption at one severity, on their device.

    `images` (batch, 3, height, width) in [0, 1], each side at least 32, are taken at their nearest 8-bit level, and the
    result, float32 of the same shape, holds 8-bit levels too. The parameters are those of the original generator
    for the nearest of 32, 64 and 224 pixels (`spec.corruptions.nearest_size`). An array of numpy is taken for a tensor.

    Random draws follow (`seed`, sample id, `name`, `severity`) and nothing else; `ids` names the samples and defaults
    to "0", "1", ... within the batch. `jpeg_quality` (1 to 100) adds the JPEG round trip that ImageNet-C's files went
    through (85 there). `frost_dir` holds the original's frost pictures, see `frost_pictures`.

    Raises `UserError` for anything outside of this.
    """
    if name not in CORRUPTIONS:
        raise unknown_name("corruption", name, CORRUPTIONS)
    if severity not in SEVERITIES:
        raise UserError(f"Severity {severity!r} does not exist.", "Severities are 1 (weakest) to 5 (strongest).")
    if jpeg_quality is not None and not 1 <= jpeg_quality <= 100:
        raise UserError(f"JPEG quality {jpeg_quality!r} does not exist.", "Take 1 to 100; ImageNet-C's files have 85.")
    images = _as_tensor(images)
    _check(images)
    ids = [str(index) for index in range(len(images))] if ids is None else list(ids)
    if len(ids) != len(images):
        raise UserError(f"{len(images)} images came with {len(ids)} ids.", "Give one sample id for each image.")
    corruption = CORRUPTIONS[name]
    apply = _function(corruption)
    if name == "frost":
        apply = partial(apply, pictures=frost_pictures(frost_dir))
    setting = corruption.setting(severity, *images.shape[-2:])
    threat = f"{name}-{severity}"
    keep_freed_blocks()
    corrupted = _empty(images)
    size = _chunk(images)

    def work(start: int) -> None:
        rows = slice(start, start + size)
        with torch.no_grad():
            # Worked on where the result will be: every other place costs time to be read and written.
            levels = torch.mul(images[rows].to(torch.float32), 255.0, out=corrupted[rows])
            _check_range(levels)
            levels = apply(levels.round_(), setting, Draws(seed, tuple(ids[rows]), threat))
            if jpeg_quality is not None:
                levels = jpeg_round_trip(levels, jpeg_quality)
            torch.div(levels, 255.0, out=corrupted[rows])

    for _ in on_every_core(work, range(0, len(images), size), images.device):
        pass
    return corrupted


def _function(corruption: Corruption) -> Callable[..., Images]:
    """What a row of the table names: (levels, setting, draws) to whole levels."""
    file, _, function = corruption.function.partition(".")
    apply: Callable[..., Images] = getattr(import_module(f"{__name__}.{file}"), function)
    return apply


def _as_tensor(images: object) -> torch.Tensor:
    if isinstance(images, torch.Tensor):
        return images
    if isinstance(images, np.ndarray) and images.dtype.kind in "biuf":
        return torch.from_numpy(np.ascontiguousarray(images, images.dtype.newbyteorder("=")))
    what = f"an array of {images.dtype}" if isinstance(images, np.ndarray) else f"a {type(images).__name__}"
    raise UserError(f"Images are {what}.", "Expected a tensor or an array (batch, 3, height, width) in [0, 1].")


def _check(images: torch.Tensor) -> None:
    if images.ndim != 4 or images.shape[1] != 3:
        raise UserError(
            f"Images have the shape {tuple(images.shape)}.", "Expected (batch, 3, height, width): RGB, channels first."
        )
    if len(images) == 0:
        raise UserError("There is no image in the batch.", "Give at least one.")
    if min(images.shape[-2:]) < SMALLEST_SIDE:
        raise UserError(
            f"Images of {images.shape[-2]} × {images.shape[-1]} pixels are too small.",
            f"The corruptions are defined from {SMALLEST_SIDE} pixels a side up; resize first.",
        )
    if not images.is_floating_point():
        raise UserError(
            f"Images hold {images.dtype}.", "Expected floating point in [0, 1]; divide 8-bit levels by 255."
        )


def _check_range(levels: torch.Tensor) -> None:
    low, high = levels.amin().item() / 255, levels.amax().item() / 255
    if not (low >= 0 and high <= 1):  # also true for NaN
        raise UserError(
            f"Images hold values from {low:g} to {high:g}.",
            "Expected pixels in [0, 1], without NaN and before any normalisation.",
        )


def _empty(images: torch.Tensor) -> torch.Tensor:
    """Room for the result. On a CPU numpy finds it, which asks the system for huge pages where torch does not.

    Touching the 38 MB of 64 images of 224 pixels for the first time costs 0.6 ms an image in small pages, 0.1 in huge.
    """
    if images.device.type == "cpu":
        return torch.from_numpy(np.empty(images.shape, dtype=np.float32))
    return torch.empty(images.shape, dtype=torch.float32, device=images.device)


_CPU_VALUES, _OTHER_VALUES = 1_250_000, 2**24
"""Pixel values to work on at once. On a CPU, 5 MB: few enough for its outer cache, enough that starting an operation is
little beside doing it (JPEG, some sixty operations, takes longer with 4 images of 224 pixels than with 8)."""


def _chunk(images: torch.Tensor) -> int:
    """Images to work on at once: on a CPU as many chunks as its threads share evenly."""
    most = max(1, (_CPU_VALUES if images.device.type == "cpu" else _OTHER_VALUES) // images[0].numel())
    threads = torch.get_num_threads() if images.device.type == "cpu" else 1
    chunks = -(-len(images) // (most * threads)) * threads
    return -(-len(images) // chunks)
