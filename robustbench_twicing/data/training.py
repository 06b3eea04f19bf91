"""Images to train on: a folder in ImageNet's layout, `train/CLASS/*` and `val/CLASS/*`, or MNIST and CIFAR in memory.

No image of a folder is read here.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from robustbench_twicing.catalog.zoo import SMALL
from robustbench_twicing.data.archives import open_tree, unreadable_folder
from robustbench_twicing.data.cifar import cifar_pictures
from robustbench_twicing.data.contents import some
from robustbench_twicing.data.decode import ENDINGS, is_image
from robustbench_twicing.data.mnist import Pictures, WhichSplit, mnist
from robustbench_twicing.errors import UserError, shown

_LAYOUT = (
    "A data set to train on is a folder with train/CLASS/*.jpg and val/CLASS/*.jpg, with the same classes in both."
)


@dataclass(frozen=True, eq=False)
class Split:
    """The images of `train/` or `val/`, sorted by class and name: so everywhere the same order."""

    root: Path
    files: tuple[str, ...]
    """Below `root`, such as `n01440764/n01440764_18.JPEG`."""
    labels: tuple[int, ...]
    levels: np.ndarray | None = None
    """(images, height, width, 3) uint8: the images themselves, where they lie in no files of their own."""

    def path(self, position: int) -> Path:
        """Of an image."""
        return self.root / self.files[position]


@dataclass(frozen=True, eq=False)
class TrainingFolder:
    """Both splits, and the classes in the order of the logits: that of their folders' names."""

    root: Path
    classes: tuple[str, ...]
    train: Split
    val: Split

    @cached_property
    def fingerprint(self) -> str:
        """12 hex digits over classes and names of the training images; over what is in them if that is in memory."""
        digest = hashlib.sha256("\0".join((*self.classes, "", *self.train.files)).encode("utf-8", "surrogateescape"))
        if self.train.levels is not None:
            digest.update(np.ascontiguousarray(self.train.levels).data)
        return digest.hexdigest()[:12]


def training_images(name: str, root: Path) -> TrainingFolder:
    """The data set of that name in `root`: MNIST or CIFAR, else a folder of images. Raises `UserError`."""
    return training_pictures(name, root) if name in SMALL else training_folder(root)


def training_pictures(name: str, root: Path) -> TrainingFolder:
    """MNIST or CIFAR, test images as `val`. Raises `UserError` that says what is not as it has to be."""
    tree = open_tree(root.expanduser())

    def read(split: WhichSplit) -> Pictures:
        return mnist(tree, split) if name == "mnist" else cifar_pictures(tree, name, split)

    splits = {split: read(split) for split in ("train", "test")}
    classes = splits["train"].classes
    if splits["test"].classes != classes:
        raise UserError(f"{root}: training and test images have other classes.", "Fetch the data set again.")
    train, val = (_in_memory(root, split, found) for split, found in splits.items())
    return TrainingFolder(root, classes, train, val)


def _in_memory(root: Path, split: str, found: Pictures) -> Split:
    files = tuple(f"{found.classes[label]}/{split}_{number:05d}" for number, label in enumerate(found.labels))
    return Split(root, files, tuple(found.labels), found.levels)


def training_folder(root: Path) -> TrainingFolder:
    """List a data set. Raises `UserError` that says what is not as it has to be."""
    root = root.expanduser()
    if not root.is_dir():
        raise UserError(f"No folder {root}.", f"{_LAYOUT} Pass it with --data-dir.")
    missing = [name for name in ("train", "val") if not (root / name).is_dir()]
    if missing:
        there = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
        raise UserError(
            f"{root} has no folder {' and no folder '.join(f'{name}/' for name in missing)}; "
            f"it has {some(there) if there else 'no folders'}.",
            _LAYOUT,
        )
    classes, val_classes = _classes(root / "train"), _classes(root / "val")
    if classes != val_classes:
        only = [sorted(set(one) - set(other)) for one, other in ((classes, val_classes), (val_classes, classes))]
        said = [
            f"{len(names):,} only in {where}/ ({some(names)})"
            for names, where in zip(only, ("train", "val"), strict=True)
            if names
        ]
        raise UserError(f"{root}: the classes of train/ and val/ differ: {', '.join(said)}.", _LAYOUT)
    if len(classes) < 2:
        raise UserError(f"{root / 'train'} has {len(classes)} class folder(s).", f"Two are needed at least. {_LAYOUT}")
    return TrainingFolder(root, classes, _split(root / "train", classes), _split(root / "val", classes))


def _classes(folder: Path) -> tuple[str, ...]:
    try:
        return tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != "."))
    except OSError as error:
        raise unreadable_folder(str(folder), error) from None


def _split(root: Path, classes: tuple[str, ...]) -> Split:
    files: list[str] = []
    labels: list[int] = []
    empty = []
    for label, name in enumerate(classes):
        try:
            found = sorted(entry.name for entry in (root / name).iterdir() if is_image(entry.name))
        except OSError as error:
            raise unreadable_folder(str(root / name), error) from None
        files += [f"{name}/{file}" for file in found]
        labels += [label] * len(found)
        empty += [] if found else [name]
    if empty:
        raise UserError(
            f"{root}: no image in {len(empty):,} class folder(s): {some([shown(name) for name in empty])}.",
            f"An image's name ends in {', '.join(ENDINGS)}, in any letter case.",
        )
    return Split(root, tuple(files), tuple(labels))
