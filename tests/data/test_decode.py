"""Bytes into RGB pictures, against PIL's own conversion as timm calls it."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from robustbench_twicing.data.decode import MAX_PIXELS, Unreadable, decode, image_size, is_image
from tests.imagenet_trees import photograph


def _bytes(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


PHOTO = photograph(1, (61, 47))
FILES = {
    "jpeg": _bytes(PHOTO, "JPEG"),
    "jpeg, no chroma subsampling": _bytes(PHOTO, "JPEG", subsampling=0),
    "progressive jpeg": _bytes(PHOTO, "JPEG", progressive=True),
    "grey jpeg": _bytes(PHOTO.convert("L"), "JPEG"),
    "CMYK jpeg": _bytes(PHOTO.convert("CMYK"), "JPEG"),
    "turned by EXIF": _bytes(PHOTO, "JPEG", exif=_exif(6)),
    "png": _bytes(PHOTO, "PNG"),
    "grey png": _bytes(PHOTO.convert("L"), "PNG"),
    "grey png with alpha": _bytes(PHOTO.convert("LA"), "PNG"),
    "png with alpha": _bytes(PHOTO.convert("RGBA"), "PNG"),
    "black and white png": _bytes(PHOTO.convert("1"), "PNG"),
    "palette": _bytes(PHOTO.quantize(64), "PNG"),
    "palette with a transparent colour": _bytes(PHOTO.quantize(64), "PNG", transparency=3),
    "gif": _bytes(PHOTO.quantize(64), "GIF"),
    "webp": _bytes(PHOTO, "WEBP"),
    "bmp": _bytes(PHOTO, "BMP"),
    "tiff": _bytes(PHOTO, "TIFF"),
    "ppm": _bytes(PHOTO, "PPM"),
}


@pytest.mark.parametrize("content", FILES.values(), ids=FILES.keys())
def test_pixels_are_those_of_the_reference_path(content: bytes) -> None:
    reference = Image.open(io.BytesIO(content)).convert("RGB")  # what timm.data.ImageDataset does
    image = decode(content)
    assert image.mode == "RGB"
    assert np.array_equal(image, reference)
    assert image_size(content) == image.size


def test_exif_orientation_is_not_applied() -> None:
    assert decode(FILES["turned by EXIF"]).size == PHOTO.size


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")  # of the reference only; ours stays silent
def test_a_palette_with_graded_transparency_changes_no_pixel() -> None:
    content = _bytes(PHOTO.quantize(64), "PNG", transparency=bytes(range(64)))
    reference = Image.open(io.BytesIO(content)).convert("RGB")
    assert np.array_equal(decode(content), reference)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_keeps_its_high_byte(kind: str) -> None:
    grey = np.asarray(PHOTO.convert("L"))
    content = _bytes(Image.fromarray(grey.astype(np.uint16) * 256 + 77), kind)
    assert np.array_equal(decode(content), np.repeat(grey[:, :, None], 3, axis=2))


def test_a_file_is_known_by_its_content_not_by_its_ending() -> None:
    # One "JPEG" of ImageNet is a PNG. The ending never reaches the decoder, so only the bytes can have told it.
    assert decode(FILES["png"]).size == decode(FILES["jpeg"]).size == PHOTO.size


def _png_claiming(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    packed = [
        struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib.crc32(tag + body)) for tag, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "empty file"),
        (b"this is no image", "not an image"),
        (b"\xff\xd8\xff\xe0 and then nothing of a JPEG", "not an image"),
        (FILES["jpeg"][: len(FILES["jpeg"]) // 2], "truncated"),
        (FILES["jpeg"][:300], "not an image"),
        (FILES["png"][: len(FILES["png"]) // 2], "corrupt or truncated"),
        (FILES["png"][:1000] + bytes(300) + FILES["png"][1300:], "corrupt or truncated"),
        (_png_claiming(100_000, 100_000), "too large"),
        (_png_claiming(MAX_PIXELS // 1000, 1001), "too large"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "not an image"),
    ],
    ids=["empty", "text", "header only", "half", "first bytes", "half png", "overwritten", "bomb", "small bomb", "eps"],
)
def test_what_cannot_be_used_is_refused_with_the_reason(content: bytes, why: str) -> None:
    with pytest.raises(Unreadable, match=why):
        decode(content)


def test_the_largest_allowed_image_passes_the_size_check() -> None:
    assert image_size(_png_claiming(MAX_PIXELS // 1000, 1000)) == (MAX_PIXELS // 1000, 1000)


@pytest.mark.parametrize("name", ["a.JPEG", "a.jpg", "a.PnG", "b c.webp", "a.tar.jpeg"])
def test_endings_count_in_any_letter_case(name: str) -> None:
    assert is_image(name)


@pytest.mark.parametrize("name", ["a.txt", "jpeg", "a.jpeg.part", ".jpeg", "._ILSVRC2012_val_00000001.JPEG"])
def test_other_files_and_hidden_ones_are_no_images(name: str) -> None:
    assert not is_image(name)
