"""Small trees in the exact layouts of ImageNet and its relatives, from real photographs, and a model that can read.

Every image carries a class number as the colour of a block in its middle, which survives JPEG, resizing and centre
crops; `LabelReader` answers that number. So whoever builds a tree decides what the model gets right.
"""

import tarfile
import zipfile
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from skimage import data as skimage_data
from sklearn.datasets import load_sample_images
from torch import nn

from robustbench_twicing.catalog.suites import suite
from robustbench_twicing.spec.suite import Part

_LEVELS = 25
"""Distance of two digits' pixel values: JPEG and resampling move a block of one colour by 3 at most."""


class Planted(NamedTuple):
    """One image of a built tree."""

    part: Part | None
    sample_id: str
    label: int
    shown: int
    """The class number in the image, and so the answer of `LabelReader`."""
    path: Path


@cache
def photographs() -> tuple[Image.Image, ...]:
    """A few real photographs that ship inside scikit-learn and scikit-image, RGB."""
    images = [*load_sample_images().images, skimage_data.astronaut(), skimage_data.coffee(), skimage_data.chelsea()]
    return tuple(Image.fromarray(image) for image in images)


def photograph(number: int, size: tuple[int, int]) -> Image.Image:
    """A piece of a photograph, (width, height) pixels; each number gives another piece."""
    picture = photographs()[number % len(photographs())]
    rng = np.random.default_rng(number)
    scale = rng.uniform(0.5, 0.9)
    width = int(min(picture.width, picture.height * size[0] / size[1]) * scale)
    height = width * size[1] // size[0]
    left, top = rng.integers(picture.width - width + 1), rng.integers(picture.height - height + 1)
    return picture.crop((left, top, left + width, top + height)).resize(size, Image.Resampling.BICUBIC)


def picture_of(shown: int, number: int = 0, size: tuple[int, int] = (80, 60)) -> Image.Image:
    """A photograph with the class number `shown` (0 to 999) in its middle."""
    image = photograph(number, size)
    digits = (shown // 100, shown // 10 % 10, shown % 10)
    side = min(size) // 2
    block = Image.new("RGB", (side, side), tuple(15 + _LEVELS * digit for digit in digits))
    image.paste(block, ((size[0] - side) // 2, (size[1] - side) // 2))
    return image


class LabelReader(nn.Module):
    """`images` (batch, 3, H, W) in [0, 1] to logits (batch, classes): the largest for the class number in the image,
    the others by distance from it, lower numbers first. The top five of 7 are 7, 6, 8, 5, 9."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        height, width = images.shape[-2:]
        reach = max(1, min(height, width) // 16)
        middle = images[..., height // 2 - reach : height // 2 + reach, width // 2 - reach : width // 2 + reach]
        digits = ((middle.mean((-1, -2)) * 255 - 15) / _LEVELS).round()
        shown = digits @ images.new_tensor([100.0, 10.0, 1.0])
        distance = torch.arange(self.classes, device=images.device) - shown[:, None]
        return -distance.abs() - 0.25 * (distance > 0)


def _answer_rightly(label: int, number: int, part: Part | None) -> int:
    return label


def build_tree(
    root: Path,
    name: str,
    classes: Sequence[str] | None = None,
    per_class: int = 1,
    shown: Callable[[int, int, Part | None], int] = _answer_rightly,
    parts: Iterable[Part] | None = None,
    families: bool = False,
    numbered: bool = True,
) -> list[Planted]:
    """Write suite `name` into `root`, with the folder and file names of the real data set.

    `classes` are wnids (default: the suite's first three); `shown(label, number, part)` is the class number that goes
    into the image, `number` counting the images of a class. `parts`, `families`: which (corruption, severity) of
    ImageNet-C, and whether with the level of families. `numbered`: ImageNet-V2 with folders 0 to 999, or wnids.
    """
    spec = suite(name)
    index = spec.index
    wanted = spec.classes[:3] if classes is None else tuple(classes)
    family = {
        corruption: group
        for group, corruptions in (*spec.families.items(), *spec.extra_families.items())
        for corruption in corruptions
    }
    planted = []
    for part in list(parts or spec.parts()) if spec.layout == "corruptions" else [None]:
        base = root
        if part is not None:
            base = root / family[part.corruption] / str(part) if families else root / str(part)
        for wnid in wanted:
            label = index.index(wnid)
            folder = base / (str(label) if spec.layout == "numbered" and numbered else wnid)
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(per_class):
                path = folder / _file_name(name, wnid, label, number)
                answer = shown(label, number, part)
                size = (spec.image_size,) * 2 if spec.image_size else (80, 60) if number % 2 else (60, 80)
                picture_of(answer, label + number, size).save(path, "JPEG", quality=90)
                planted.append(Planted(part, f"{wnid}/{path.stem}", label, answer, path))
    return planted


def _file_name(name: str, wnid: str, label: int, number: int) -> str:
    """As the files of the real data set are named; unique within a class, and for val within the data set."""
    return {
        "imagenet-a": f"0.{number:06d}_fox squirrel _ sea lion_0.41.jpg",
        "imagenet-r": f"{('art', 'cartoon', 'sketch')[number % 3]}_{number}.jpg",
        "imagenet-v2": f"{label * 1000 + number:040x}.jpeg",
        "imagenet-sketch": f"sketch_{number}.JPEG",
        "imagenet-o": f"{wnid}_{number}.JPEG",
    }.get(name, f"ILSVRC2012_val_{label * 50 + number + 1:08d}.JPEG")


def pack_tar(folder: Path, archive: Path, inside: str = "", kind: int = tarfile.GNU_FORMAT) -> Path:
    """`folder`'s contents as a tar, below `inside`."""
    with tarfile.open(archive, "w", format=kind) as file:
        file.add(folder, inside or ".")
    return archive


def pack_zip(folder: Path, archive: Path, inside: str = "", method: int = zipfile.ZIP_STORED) -> Path:
    """`folder`'s contents as a zip, below `inside`."""
    with zipfile.ZipFile(archive, "w", method) as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, Path(inside) / path.relative_to(folder))
    return archive
