"""A JPEG round trip without files: baseline, 4:2:0, as libjpeg (and so Pillow) does it, batched on the device.

Source: ITU-T T.81 and libjpeg's integer arithmetic (jccolor.c, jcsample.c, jcdctmgr.c, jdsample.c, jdcolor.c). Colour
conversion, chroma sampling and quantisation repeat its rounding; the two cosine transforms are computed in float32
where libjpeg uses 13-bit fixed point, so a coefficient near a rounding border may fall to the other side.
Entropy coding loses nothing and is left out.
"""

from functools import lru_cache

import numpy as np
import torch
from torch.nn import functional

from robustbench_twicing.engine.corruptions.filters import Planes
from robustbench_twicing.machine import onednn
from robustbench_twicing.tensors import Images

# ITU-T T.81, tables K.1 and K.2.
_LUMINANCE = (
    "16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62 "
    "18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99"
)
_CHROMINANCE = (
    "17 18 24 47 99 99 99 99 18 21 26 66 99 99 99 99 24 26 56 99 99 99 99 99 47 66 99 99 99 99 99 99 " + " 99" * 32
)


# JFIF 1.02: luma, blue-difference and red-difference chroma of (red, green, blue), and back, as libjpeg's multiples of
# 2^-16. The sums are exact in float32 up to 256, beyond which they are clamped, so neither order nor device matters.
_FROM_RGB = (np.array(((19595, 38470, 7471), (-11059, -21709, 32768), (32768, -27439, -5329))) / 2**16).tolist()
_TO_RED, _TO_GREEN, _TO_BLUE = 91881 / 2**16, (-22554 / 2**16, -46802 / 2**16), 116130 / 2**16


def jpeg_round_trip(levels: Images, quality: int) -> Images:
    """Whole levels as they come back from a JPEG file of `quality` (1 to 100) with 4:2:0 chroma, Pillow's default.

    They are written over `levels`.
    """
    height, width = levels.shape[-2:]
    bright, chroma = _from_rgb(levels)
    luma = _whole(_coded(_blocks(_padded(bright, -height % 8, -width % 8)), _LUMINANCE, quality))
    small = _whole(_coded(_halved_blocks(chroma.flatten(0, 1)), _CHROMINANCE, quality, turned=True))
    # Turned on their side, columns are worked on as fast as rows: chroma is doubled half-turned.
    wide = _doubled_rows(small[:, : -(-width // 2), : -(-height // 2)]).transpose(1, 2)
    # libjpeg rounds sixteenths with a bias of 8 on even columns and 7 on odd ones.
    biases = wide.new_tensor((8 / 16, 7 / 16)).repeat(wide.shape[2] // 2)
    large = _doubled_rows(torch.add(wide, biases, out=wide.new_empty(wide.shape))).floor_()
    return _to_rgb(luma[:, :height, :width], large[:, :height, :width].view(-1, 2, height, width), out=levels)


def _from_rgb(levels: Images) -> tuple[Planes, torch.Tensor]:
    """Whole luma minus 128, and whole chroma about 0 (batch, 2, height, width): what the transform takes."""
    luma, chroma = torch.empty_like(levels[:, 0]), torch.empty_like(levels[:, 1:])
    # Halves round up; libjpeg adds one unit less to chroma, so that its ties fall.
    for part, weights, offset in zip(
        (luma, *chroma.unbind(1)), _FROM_RGB, (0.5 - 128, 0.5 - 2**-16, 0.5 - 2**-16), strict=True
    ):
        torch.add(levels.new_tensor(offset), levels[:, 0], alpha=weights[0], out=part)
        part.add_(levels[:, 1], alpha=weights[1]).add_(levels[:, 2], alpha=weights[2]).floor_()
    return luma, chroma


def _to_rgb(luma: Planes, chroma: torch.Tensor, out: Images) -> Images:
    """Levels from what `_from_rgb` gives. Overwrites `luma`."""
    bluish, reddish = chroma.unbind(1)
    # libjpeg rounds the chroma term before it adds luma; luma is whole, so rounding the sum is the same.
    luma += 128.5
    red, green, blue = out.unbind(1)
    torch.add(luma, reddish, alpha=_TO_RED, out=red)
    torch.add(luma, bluish, alpha=_TO_GREEN[0], out=green).add_(reddish, alpha=_TO_GREEN[1])
    torch.add(luma, bluish, alpha=_TO_BLUE, out=blue)
    return out.floor_().clamp_(0, 255)


def _halved_blocks(planes: Planes) -> torch.Tensor:
    """The `_blocks` of (height / 2, width / 2): means of 2 × 2 pixels.

    Their sums are rounded up and down in turn along a row (libjpeg's bias of 1, 2, 1, 2, ...).
    """
    height, width = planes.shape[-2:]
    # Rightwards libjpeg repeats the last pixel before it halves, downwards the last row after it (but for an odd one).
    planes = _padded(planes, height % 2, -width % 16)
    rows = planes[:, ::2] + planes[:, 1::2]
    rows = _padded(rows, -rows.shape[1] % 8, 0)
    left, right = _blocks(rows[:, :, ::2], copy=False), _blocks(rows[:, :, 1::2], copy=False)
    sums = torch.add(left, right, out=left.new_empty(left.shape)).flatten(3)
    return sums.add_(sums.new_tensor((1, 2) * 32)).mul_(0.25).floor_()


def _doubled_rows(planes: torch.Tensor) -> torch.Tensor:
    """libjpeg's "fancy" upsampling along columns: 3/4 of the nearer and 1/4 of the farther row, the last repeated."""
    doubled = planes.new_empty(len(planes), planes.shape[1], 2, planes.shape[2])
    even, odd = doubled.unbind(2)
    even[:, 0], odd[:, -1] = planes[:, 0], planes[:, -1]
    torch.lerp(planes[:, 1:], planes[:, :-1], 0.25, out=even[:, 1:])
    torch.lerp(planes[:, :-1], planes[:, 1:], 0.25, out=odd[:, :-1])
    return doubled.flatten(1, 2)


def _padded(planes: torch.Tensor, bottom: int, right: int) -> torch.Tensor:
    return functional.pad(planes[:, None], (0, right, 0, bottom), mode="replicate")[:, 0] if bottom or right else planes


def _blocks(planes: Planes, copy: bool = True) -> torch.Tensor:
    """(batch, height / 8, width / 8, 64), the pixels of 8 × 8 blocks; without `copy` a view (..., 8, 8)."""
    blocks = planes.unflatten(1, (-1, 8)).unflatten(3, (-1, 8)).transpose(2, 3)
    result: torch.Tensor = blocks.flatten(3) if copy else blocks
    return result


def _whole(blocks: torch.Tensor) -> Planes:
    """The planes whose `_blocks` are these."""
    result: torch.Tensor = blocks.unflatten(3, (8, 8)).transpose(2, 3).flatten(3).flatten(1, 2)
    return result


def _coded(blocks: torch.Tensor, standard: str, quality: int, turned: bool = False) -> torch.Tensor:
    """Each 8 × 8 block through cosine transform, quantisation and back: whole values from -128 to 127.

    `turned` lays the planes that come back on their side: their rows are columns of the picture.
    """
    forward, per_step, backward, half = _transforms(standard, quality, turned, blocks.device)
    # libjpeg keeps coefficients in eighths and rounds the quotient's ties away from zero, which `per_step` sees to.
    quotients = _product(blocks, forward).round_().mul_(per_step).round_()
    pixels = _product(quotients, backward, half, (-128.0, 127.5)).floor_()
    return pixels.transpose(1, 2) if turned else pixels


def _product(
    blocks: torch.Tensor,
    matrix: torch.Tensor,
    offset: torch.Tensor | None = None,
    limits: tuple[float, float] | None = None,
) -> torch.Tensor:
    """matrix · block + offset for every block, in `limits`. Its last bit must not depend on how many there are.

    On a CPU by oneDNN, which takes half of MKL's time on AMD's and sums alike for any number of blocks but one.
    """
    if blocks.device.type == "cpu" and onednn.available():
        return onednn.product(blocks, matrix, offset, onednn.clamped(*limits) if limits else onednn.AS_IT_IS)
    # One product of the same shape for each picture, whatever the batch.
    products = torch.bmm(blocks.flatten(1, 2), matrix.T.expand(len(blocks), -1, -1)).view_as(blocks)
    if offset is not None:
        products += offset
    return products.clamp_(*limits) if limits else products


@lru_cache(maxsize=64)
def _transforms(
    standard: str, quality: int, turned: bool, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(64, 64) from pixels to eighths of coefficients, (64,) to quotients, (64, 64) from them to pixels; halves."""
    # libjpeg's jcparam.c scales the standard's steps with the quality so:
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    steps = ((np.array(standard.split(), dtype=np.int64) * percent + 50) // 100).clip(1, 255).astype(np.float64)
    frequency, place = np.arange(8)[:, None], np.arange(8)
    cosine = np.cos((2 * place + 1) * frequency * np.pi / 16) / 2
    cosine[0] /= np.sqrt(2)
    transform = np.kron(cosine, cosine)  # orthogonal: its transpose is its inverse
    rows, columns = np.arange(64).reshape(8, 8), np.arange(64).reshape(8, 8).T
    pixels = (transform.T * steps)[(columns if turned else rows).ravel()]
    # A tie, such as 2.5, is exact, and its nearest neighbours are 1 / (8 steps) away: growing all quotients by a
    # millionth sends ties away from zero and moves nothing else across a border.
    arrays = (8 * transform, (1 + 2.0**-20) / (8 * steps), pixels, np.full(64, 0.5))
    forward, per_step, backward, half = (torch.from_numpy(array.astype(np.float32)).to(device) for array in arrays)
    return forward, per_step, backward, half
