"""Bytes into RGB pictures, against PIL's own conversion as timm calls it."""

import inspect
import io
import struct
import sys
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from robustbench_twicing.data.decode import MAX_PIXELS, REFUSED, Unreadable, decode, image_size, is_image
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


def _written() -> dict[str, bytes]:
    """A picture in every format and mode that the installed PIL can write and read, by "FORMAT MODE"."""
    Image.init()
    deep = np.asarray(PHOTO.convert("L")).astype(np.uint16) * 256 + 77
    pictures = {
        mode: PHOTO.convert(mode) for mode in ("1", "L", "LA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "F")
    }
    pictures |= {"P": PHOTO.quantize(64), "PA": PHOTO.quantize(64).convert("PA"), "I;16": Image.fromarray(deep)}
    pictures |= {"I": PHOTO.convert("I"), "LAB": PHOTO.convert("LAB"), "La": PHOTO.convert("LA").convert("La")}
    pictures |= {"RGBa": PHOTO.convert("RGBA").convert("RGBa"), "I;16B": PHOTO.convert("I").convert("I;16B")}
    found = {}
    for kind in sorted(set(Image.SAVE) & set(Image.OPEN) - {"ICNS"} | {"MPO"}):  # ICNS takes seconds to write
        for mode, picture in pictures.items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    found[f"{kind} {mode}"] = _bytes(picture, kind, **({"speed": 10} if kind == "AVIF" else {}))
                    Image.open(io.BytesIO(found[f"{kind} {mode}"])).convert("RGB")
                except Exception:  # noqa: BLE001 - a mode that this format cannot hold, or a format that cannot be read
                    found.pop(f"{kind} {mode}", None)
    return found


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")  # of the reference only
@pytest.mark.filterwarnings("ignore:IM image format is deprecated")
def test_every_format_and_mode_that_pil_can_write_is_read_as_timm_reads_it() -> None:
    seen = set()
    for name, content in _written().items():
        kind = name.split()[0]
        if kind in REFUSED:
            with pytest.raises(Unreadable):
                decode(content)
            continue
        reference = Image.open(io.BytesIO(content))
        if reference.mode.startswith("I;16") or (kind, reference.mode) == ("PPM", "I"):
            continue  # 16 bits of grey; see below
        assert np.array_equal(decode(content), reference.convert("RGB")), name
        seen.add(kind)
    assert {"AVIF", "BMP", "GIF", "ICO", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "QOI", "TGA", "TIFF", "WEBP"} <= seen


def test_levels_of_a_32_bit_tiff_are_not_halved_to_black() -> None:
    levels = np.arange(64 * 64, dtype=np.int32).reshape(64, 64) % 256
    image = np.asarray(decode(_bytes(Image.fromarray(levels), "TIFF")))
    assert np.array_equal(image, np.repeat(levels[:, :, None], 3, axis=2))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM", "JPEG2000"])
def test_sixteen_bit_grey_keeps_its_high_byte(kind: str) -> None:
    grey = np.asarray(PHOTO.convert("L"))
    content = _bytes(Image.fromarray(grey.astype(np.uint16) * 256 + 77), kind)
    assert np.array_equal(decode(content), np.repeat(grey[:, :, None], 3, axis=2))


def test_twelve_bit_grey_keeps_its_highest_eight() -> None:
    # Little-endian TIFF of 2 x 1 pixels, 12 bits each: 0xABC and 0x123, packed as AB C1 23.
    tags = [(256, 3, 1, 2), (257, 3, 1, 1), (258, 3, 1, 12), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8),
            (277, 3, 1, 1), (278, 3, 1, 1), (279, 4, 1, 3)]  # fmt: skip
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    content = b"II*\0" + struct.pack("<I", 12) + b"\xab\xc1\x23\0" + directory
    assert np.asarray(decode(content))[0, :, 0].tolist() == [0xAB, 0x12]


def test_no_format_that_starts_a_program_or_opens_others_is_read() -> None:
    """Every reader of the installed PIL whose code mentions a process, or opens what lies inside, is refused."""
    Image.init()
    harmless = {"GIF", "ICNS", "JPEG", "SPIDER", "WEBP"}  # they do it where they write, or when run as a script
    for kind, (reader, _) in Image.OPEN.items():
        code = inspect.getsource(sys.modules[reader.__module__])
        if "subprocess" in code or "os.system" in code or "Image.open(" in code or "StubImageFile" in code:
            assert kind in {*REFUSED, *harmless}, kind


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
