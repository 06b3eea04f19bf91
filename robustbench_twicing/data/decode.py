"""A file's bytes into an RGB picture, exactly as timm and torchvision read it.

The reference path is `PIL.Image.open(file).convert("RGB")`: greyscale is repeated over the channels, CMYK is converted
by PIL's plain formula, a palette is looked up, an alpha channel is dropped (not blended), levels of more than 8 bits
are clipped, and the EXIF orientation is **not** applied, because neither timm's nor torchvision's evaluation applies
it. One departure: of grey with 16 bits (or 12, in a TIFF), which PIL clips to white, the highest 8 are taken. No
ImageNet suite is known to hold such a file. What is read is what the installed PIL reads, less `REFUSED`.
"""

import io
from functools import cache

import numpy as np
import PIL
from PIL import Image, UnidentifiedImageError

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff",
           ".gif", ".avif", ".jfif", ".jpe", ".jp2", ".pbm", ".pnm", ".heic", ".heif", ".jxl")  # fmt: skip
"""File endings of images, in lower case: those of torchvision's `ImageFolder`, and others that photographs have. Any
letter case is accepted. The list is the same whatever PIL can read, so that a data set has the same samples everywhere;
one that PIL cannot read fails by name."""

MAX_PIXELS = 89_478_485
"""Images above this many pixels are refused: where PIL itself begins to warn of a decompression bomb."""

REFUSED = {
    "EPS": "its reader starts Ghostscript",
    "IPTC": "its reader opens whatever lies inside, EPS too",
    "WMF": "its reader is the operating system's",
    "BUFR": "its reader is another program's",
    "GRIB": "its reader is another program's",
    "HDF5": "its reader is another program's",
    "MPEG": "it is a film",
}
"""Formats of PIL that bytes from a data set must never reach, and why. A test looks for others in the installed PIL."""

_TIFF_BITS_PER_SAMPLE = 258

_BOMB = (Image.DecompressionBombError, Image.DecompressionBombWarning)


class Unreadable(Exception):
    """Why some bytes are no image that can be used. Whoever knows the file's name adds it."""


def ppm(width: int, height: int, levels: bytes) -> bytes:
    """RGB of 8 bits, row by row, as a file that `decode` reads without a loss."""
    return b"P6 %d %d 255\n" % (width, height) + levels


def is_image(name: str) -> bool:
    """`name` has an image's ending and is not hidden ("._x.JPEG" is what macOS leaves beside x.JPEG)."""
    return name.lower().endswith(ENDINGS) and not name.startswith(".")


def image_size(content: bytes) -> tuple[int, int]:
    """(width, height) from the header, without decoding. Raises `Unreadable`."""
    return _opened(content).size


def decode(content: bytes) -> Image.Image:
    """The picture in mode RGB. Raises `Unreadable` if it is empty, corrupt, truncated, unknown or too large."""
    image = _opened(content)
    try:
        deep = _grey_bits(image) - 8
        if deep > 0:
            image = Image.fromarray((np.asarray(image) >> deep).clip(0, 255).astype(np.uint8))
        image.info.pop("transparency", None)  # only its warning: without alpha in the target it changes no pixel
        image.load()
        return image if image.mode == "RGB" else image.convert("RGB")  # converting would copy
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - on corrupt data, PIL's readers raise whatever their parsing runs into
        raise Unreadable(f"corrupt or truncated: {error}") from None


def _grey_bits(image: Image.Image) -> int:
    """Bits of a grey picture whose levels go from 0 to 2^bits - 1, if they are 9 to 16; else 8.

    PIL's mode alone does not tell: `I` holds 32-bit integers, and also the 16 bits of PNG (before PIL 11.3) and PGM.
    """
    if image.format == "TIFF" and image.mode.startswith("I;16"):
        return int(image.tag_v2.get(_TIFF_BITS_PER_SAMPLE, (16,))[0])  # type: ignore[attr-defined]
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return 16
    return 8


@cache
def _formats() -> tuple[str, ...]:
    """What the installed PIL reads and we let it read, in PIL's order."""
    Image.init()
    return tuple(name for name in Image.ID if name not in REFUSED)


def _opened(content: bytes) -> Image.Image:
    if not content:
        raise Unreadable("empty file (0 bytes)")
    try:
        image = Image.open(io.BytesIO(content), formats=_formats())
    except _BOMB as error:
        raise Unreadable(f"too large: {error}") from None
    except UnidentifiedImageError:  # its text holds a memory address, which no record should
        raise Unreadable(f"not an image that PIL {PIL.__version__} reads here") from None
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - as above
        raise Unreadable(f"not an image: {error}") from None
    if image.width * image.height > MAX_PIXELS:
        raise Unreadable(f"too large: {image.width} x {image.height} pixels, more than {MAX_PIXELS:,}")
    return image
