"""A file's bytes into an RGB picture, exactly as timm and torchvision read it.

The reference path is `PIL.Image.open(file).convert("RGB")`: greyscale is repeated over the channels, CMYK is converted
by PIL's plain formula, a palette is looked up, an alpha channel is dropped (not blended), and the EXIF orientation is
**not** applied, because neither timm's nor torchvision's evaluation applies it. One departure: PIL clips 16-bit grey
to white, so here its high byte is taken. No ImageNet suite is known to hold such a file.
"""

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff")
"""File endings of images, in lower case (those of torchvision's `ImageFolder`); any letter case is accepted."""

MAX_PIXELS = 89_478_485
"""Images above this many pixels are refused: where PIL itself begins to warn of a decompression bomb."""

# Named, so that bytes from a data set never reach PIL's EPS reader, which starts another program.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM", "TIFF", "GIF")

_BOMB = (Image.DecompressionBombError, Image.DecompressionBombWarning)


class Unreadable(Exception):
    """Why some bytes are no image that can be used. Whoever knows the file's name adds it."""


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
        if image.mode.startswith("I"):  # "I;16" and its byte orders; "I" in older versions of PIL
            image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
        image.info.pop("transparency", None)  # only its warning: without alpha in the target it changes no pixel
        image.load()
        return image if image.mode == "RGB" else image.convert("RGB")  # converting would copy
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - on corrupt data, PIL's readers raise whatever their parsing runs into
        raise Unreadable(f"corrupt or truncated: {error}") from None


def _opened(content: bytes) -> Image.Image:
    if not content:
        raise Unreadable("empty file (0 bytes)")
    try:
        image = Image.open(io.BytesIO(content), formats=_FORMATS)
    except _BOMB as error:
        raise Unreadable(f"too large: {error}") from None
    except UnidentifiedImageError:  # its text holds a memory address, which no record should
        raise Unreadable("not an image") from None
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - as above
        raise Unreadable(f"not an image: {error}") from None
    if image.width * image.height > MAX_PIXELS:
        raise Unreadable(f"too large: {image.width} x {image.height} pixels, more than {MAX_PIXELS:,}")
    return image
