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
from robustbench_twicing.tensors import Images

# ITU-T T.81, tables K.1 and K.2.
_LUMINANCE = (
    "16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62 "
    "18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99"
)
_CHROMINANCE = (
    "17 18 24 47 99 99 99 99 18 21 26 66 99 99 99 99 24 26 56 99 99 99 99 99 47 66 99 99 99 99 99 99 "
    + " 99" * 32
)


def jpeg_round_trip(levels: Images, quality: int) -> Images:
    """Whole levels as they come back from a JPEG file of `quality` (1 to 100) with 4:2:0 chroma, Pillow's default."""
    height, width = levels.shape[-2:]
    red, green, blue = levels.unbind(1)
    # Luma minus 128, and chroma about 0, which is what the transform takes. Halves round up; libjpeg adds one unit in
    # 2^16 less to chroma, so that its ties fall.
    luma = (red * 0.299).add_(green, alpha=0.587).add_(blue, alpha=0.114).add_(0.5 - 128).floor_()
    luma = _block_round_trip(luma, _table(_LUMINANCE, quality))
    chroma = torch.empty_like(levels[:, :2])
    for plane, (r, g, b) in zip(chroma.unbind(1), _CHROMA, strict=True):
        torch.mul(red, r, out=plane).add_(green, alpha=g).add_(blue, alpha=b).add_(0.5 - 2**-13).floor_()
    chroma = _block_round_trip(_halved(chroma.flatten(0, 1)), _table(_CHROMINANCE, quality))
    bluish, reddish = _doubled(chroma, height, width).view(-1, 2, height, width).unbind(1)
    # libjpeg rounds the chroma term before it adds luma; luma is whole, so rounding the sum is the same.
    rgb = torch.empty_like(levels)
    torch.add(luma, reddish, alpha=1.402, out=rgb[:, 0])
    torch.add(luma, bluish, alpha=-0.344136286, out=rgb[:, 1]).add_(reddish, alpha=-0.714136286)
    torch.add(luma, bluish, alpha=1.772, out=rgb[:, 2])
    return rgb.add_(128.5).floor_().clamp_(0, 255)


# JFIF 1.02: blue-difference and red-difference chroma of (red, green, blue).
_CHROMA = ((-0.168735892, -0.331264108, 0.5), (0.5, -0.418687589, -0.081312411))


def _halved(planes: Planes) -> torch.Tensor:
    """Means of 2 × 2 pixels, the sums rounded up and down in turn along a row (libjpeg's bias of 1, 2, 1, 2, ...)."""
    height, width = planes.shape[-2:]
    # Rightwards libjpeg repeats the last pixel before it halves, downwards the last row after it (but for an odd one).
    planes = _padded(planes, height % 2, -width % 16)
    rows = planes[:, ::2] + planes[:, 1::2]
    sums = rows[..., ::2] + rows[..., 1::2]
    bias = torch.tensor((1.0, 2.0), device=planes.device).repeat(sums.shape[-1] // 2)
    return sums.add_(bias).mul_(0.25).floor_()


def _padded(planes: Planes, bottom: int, right: int) -> torch.Tensor:
    return functional.pad(planes[:, None], (0, right, 0, bottom), mode="replicate")[:, 0] if bottom or right else planes


def _doubled(planes: Planes, height: int, width: int) -> torch.Tensor:
    """libjpeg's "fancy" upsampling: 3/4 of the nearer and 1/4 of the farther pixel each way, the last repeated."""
    planes = planes[:, : -(-height // 2), : -(-width // 2)]
    tall = functional.pad(planes[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    middle = tall[:, 1:-1] * 3
    rows = torch.stack((middle + tall[:, :-2], middle + tall[:, 2:]), dim=2).flatten(1, 2)
    middle = rows[..., 1:-1] * 3
    left, right = middle + rows[..., :-2], middle + rows[..., 2:]
    # Sixteenths, rounded with a bias of 8 on even columns and 7 on odd ones.
    both = torch.stack((left.add_(8), right.add_(7)), dim=-1).mul_(1 / 16).floor_()
    return both.flatten(2)[:, :height, :width]


def _block_round_trip(planes: Planes, table: np.ndarray) -> Planes:
    """Each 8 × 8 block through cosine transform, quantisation and back: whole values from -128 to 127."""
    height, width = planes.shape[-2:]
    padded = _padded(planes, -height % 8, -width % 8)
    down, across = padded.shape[1] // 8, padded.shape[2] // 8
    blocks = padded.view(-1, down, 8, across, 8).transpose(2, 3).reshape(-1, down * across, 64)
    forward, steps, backward = _transforms(table.tobytes(), planes.device)
    # libjpeg keeps coefficients in eighths and rounds the quotient's ties away from zero, which the steps see to.
    eighths = torch.bmm(blocks, forward.expand(len(blocks), -1, -1)).round_()
    quotients = eighths.mul_(steps).round_()
    pixels = torch.bmm(quotients, backward.expand(len(blocks), -1, -1)).add_(0.5).floor_().clamp_(-128, 127)
    pixels = pixels.view(-1, down, across, 8, 8).transpose(2, 3).reshape(padded.shape)
    return pixels[:, :height, :width]


def _table(standard: str, quality: int) -> np.ndarray:
    """Quantisation steps at a quality, as libjpeg scales the standard's (jcparam.c): (64,) int64, 1 to 255."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    return ((np.array(standard.split(), dtype=np.int64) * percent + 50) // 100).clip(1, 255)


@lru_cache(maxsize=16)
def _transforms(table: bytes, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(64, 64) pixels to eighths of coefficients, (64,) to quotients, (64, 64) quotients to pixels."""
    steps = np.frombuffer(table, dtype=np.int64).astype(np.float64)
    frequency, place = np.arange(8)[:, None], np.arange(8)
    cosine = np.cos((2 * place + 1) * frequency * np.pi / 16) / 2
    cosine[0] /= np.sqrt(2)
    transform = np.kron(cosine, cosine)  # orthogonal: its transpose is its inverse
    # A tie, such as 2.5, is exact, and its nearest neighbours are 1/(8 step) away: growing all quotients by a millionth
    # sends ties away from zero and moves nothing else across a border.
    quotient = (1 + 2.0**-20) / (8 * steps)
    arrays = (8 * transform.T, quotient, transform * steps[:, None])
    forward, quotient, backward = (torch.from_numpy(array.astype(np.float32)).to(device) for array in arrays)
    return forward, quotient, backward
