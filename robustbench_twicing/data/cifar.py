"""CIFAR-10 and CIFAR-100 as their authors publish them, and CIFAR-10-C, as trees of class folders.

Krizhevsky 2009 (https://www.cs.toronto.edu/~kriz/cifar.html): python pickles with the test images in one file.
Hendrycks and Dietterich 2019 (https://zenodo.org/records/2535967): one array for each corruption, five severities of
all test images behind one another, and their labels.
"""

import io
import math
import pickle
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from robustbench_twicing.catalog.suites import class_list
from robustbench_twicing.data.archives import Listing, Tree, join
from robustbench_twicing.data.decode import ppm
from robustbench_twicing.data.mnist import Pictures, WhichSplit, mnist
from robustbench_twicing.errors import UserError, shown
from robustbench_twicing.spec.suite import SuiteSpec

Levels = np.ndarray
"""(images, height, width, 3) uint8."""

_SEVERITIES = 5
"""In a file of CIFAR-10-C, whichever of them a suite takes."""

_TEST, _TRAINING, _META = ("test_batch", "test"), ("data_batch_1", "train"), ("batches.meta", "meta")
_PARTS = tuple(f"data_batch_{number}" for number in range(1, 6))
_LABELS, _NAMES = (b"labels", b"fine_labels"), (b"label_names", b"fine_label_names")


# --- pickles ---------------------------------------------------------------------------------------------------------


class _Kind:
    """Stands for numpy.dtype in a pickle; only its name is looked at."""

    def __init__(self, name: Any, *flags: Any) -> None:
        self.name = name.decode("latin-1") if isinstance(name, bytes) else str(name)

    def __setstate__(self, state: Any) -> None:
        pass


class _Array:
    """Stands for numpy.ndarray in a pickle: shape, kind and bytes, from which nothing is built before it is checked."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _reconstruct(*arguments: Any) -> _Array:
    return _Array()


def _encoded(text: str, encoding: str) -> bytes:
    return text.encode("latin-1")


_ADMITTED: Mapping[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Kind,
    ("_codecs", "encode"): _encoded,
}
"""Everything that a pickle may call: stand-ins of our own, not numpy's, which trust the state they are given."""


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _ADMITTED[module, name]


def read_batch(content: bytes, where: str) -> dict[bytes, Any]:
    """A pickled dict of arrays, bytes, lists and numbers; no code runs, whatever the bytes are. Raises `UserError`."""
    try:
        found = _Reader(io.BytesIO(content), encoding="bytes").load()
        if not isinstance(found, dict):
            raise TypeError(f"it holds a {type(found).__name__}")
        named = {key.encode() if isinstance(key, str) else key: value for key, value in found.items()}
        return {key: _array(value) if isinstance(value, _Array) else value for key, value in named.items()}
    except Exception as error:  # noqa: BLE001 - a hostile pickle raises whatever it likes; MemoryError is a false length
        raise UserError(
            f"{where} is no batch of CIFAR: {type(error).__name__}: {error}.",
            "Fetch it again. Only arrays of bytes, lists and numbers are read from a pickle, never code.",
        ) from None


def _array(value: _Array) -> np.ndarray:
    _, shape, kind, _, content = value.state
    if not isinstance(kind, _Kind) or kind.name != "u1" or not isinstance(content, bytes):
        raise TypeError("an array that holds something else than bytes")
    return np.frombuffer(content, np.uint8).reshape(shape)


# --- trees -----------------------------------------------------------------------------------------------------------


class ArrayTree:
    """Pictures of arrays as a tree: [CORRUPTION/SEVERITY/]CLASS/test_00042.ppm, numbered by their place in it."""

    left_out: tuple[str, ...] = ()

    def __init__(
        self, root: Path, classes: Sequence[str], labels: Sequence[int], parts: Mapping[str, Callable[[], Levels]]
    ) -> None:
        """`parts`: "" for the one data set, or CORRUPTION/SEVERITY; each gives as many pictures as there are labels."""
        self.root = root
        self._parts = {part: cache(levels) for part, levels in parts.items()}
        self._numbers: dict[str, dict[str, int]] = defaultdict(dict)
        for number, label in enumerate(labels):
            self._numbers[classes[label]][f"test_{number:05d}.ppm"] = number

    def _split(self, path: str) -> tuple[str, list[str]]:
        """The part, and what of the path lies in it. Raises `OSError`."""
        steps = path.split("/") if path else []
        depth = 0 if "" in self._parts else 2
        part = "/".join(steps[:depth])
        if len(steps) >= depth and part not in self._parts:
            raise FileNotFoundError(2, "no such folder", path)
        return part, steps[depth:]

    def listing(self, folder: str) -> Listing:
        part, inside = self._split(folder)
        if part not in self._parts:  # above the parts
            begin = f"{folder}/" if folder else ""
            below = {name[len(begin) :].partition("/")[0] for name in self._parts if name.startswith(begin)}
            return Listing(tuple(sorted(below)), ())
        if not inside:
            return Listing(tuple(sorted(self._numbers)), ())
        return Listing((), tuple(self._numbers.get(inside[0], ())))

    def _levels(self, path: str) -> np.ndarray:
        part, inside = self._split(path)
        number = self._numbers.get(inside[0], {}).get(inside[1]) if len(inside) == 2 else None
        if number is None:
            raise FileNotFoundError(2, "no such picture", path)
        levels: np.ndarray = self._parts[part]()[number]
        return levels

    def size(self, path: str) -> int:
        part, _ = self._split(path)
        return int(np.prod(self._parts[part]().shape[1:]))

    def read(self, path: str) -> bytes:
        levels = self._levels(path)
        height, width, _ = levels.shape
        return ppm(width, height, levels.tobytes())

    def raw(self, path: str) -> None:
        return None

    def where(self, path: str) -> str:
        return shown(f"{self.root}: {path or 'top'}")


def cifar_tree(suite: SuiteSpec, tree: Tree) -> tuple[SuiteSpec, ArrayTree]:
    """The test images of CIFAR-10 or CIFAR-100 in python batches, and the suite with its classes.

    Without an index of its own, the suite's classes are those that the data set names. Raises `UserError`.
    """
    folder, files = _folder(suite, tree, (*_TEST, *_TRAINING))
    test = next((name for name in _TEST if name in files), None)
    if test is None:
        raise UserError(
            f"{tree.where(folder)} holds training batches of CIFAR and no test batch ({' or '.join(_TEST)}).",
            "Only the test images are evaluated; put them there.",
        )
    place = join(folder, test)
    levels, labels = _batch(tree, place)
    classes = suite.index or _names(tree, folder, files)
    _refuse_other_classes(suite, classes, labels, tree.where(place))
    named = suite if suite.index else suite.model_copy(update={"index": classes, "classes": classes})
    return named, ArrayTree(tree.root, classes, labels, {"": lambda: levels})


def _batch(tree: Tree, place: str) -> tuple[Levels, list[int]]:
    """The pictures and labels of one file."""
    batch = read_batch(tree.read(place), tree.where(place))
    labels = next((batch[key] for key in _LABELS if key in batch), None)
    data = batch.get(b"data")
    if not isinstance(data, np.ndarray) or data.shape[1:] != (3 * 32 * 32,) or not _are_labels(labels, len(data)):
        raise UserError(
            f"{tree.where(place)} holds no data of 3,072 bytes an image with one label for each.",
            'CIFAR\'s "python version" has both; see docs/datasets.md.',
        )
    return data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels


def cifar_pictures(tree: Tree, name: str, split: WhichSplit) -> Pictures:
    """The images of CIFAR-10 (`cifar10`) or CIFAR-100 to train on or to test with. Raises `UserError`."""
    usual = {"cifar10": ("test_batch", _PARTS), "cifar100": ("test", ("train",))}
    test, training = usual[name]
    wanted = training if split == "train" else (test,)
    top = tree.listing("")
    folder = next((one for one in ("", *top.folders) if test in tree.listing(one).files), None)
    missing = wanted if folder is None else sorted(set(wanted) - set(tree.listing(folder).files))
    if folder is None or missing:
        raise UserError(
            f"{shown(str(tree.root))} is not {name}: it holds no {', '.join(missing)}.",
            "Pass the folder of the python batches as they are published, or the tar after `gunzip`.",
        )
    parts = [_batch(tree, join(folder, part)) for part in wanted]
    labels = [label for _, some in parts for label in some]
    classes = class_list(name)
    if not 0 <= min(labels) <= max(labels) < len(classes):
        raise UserError(f"{tree.where(folder)} has labels that {name} has not.", "Pass --data cifar10 or cifar100.")
    return Pictures(np.concatenate([levels for levels, _ in parts]), labels, classes)


def _are_labels(labels: Any, count: int) -> TypeGuard[list[int]]:
    return isinstance(labels, list) and len(labels) == count > 0 and all(type(label) is int for label in labels)


def _names(tree: Tree, folder: str, files: Sequence[str]) -> tuple[str, ...]:
    meta = next((name for name in _META if name in files), None)
    if meta is None:
        raise UserError(
            f"{tree.where(folder)} holds no {' or '.join(_META)}, so its classes have no names.",
            'Write classes = "cifar10", "cifar100" or the name of a text file, one class a line in the labels\' order.',
        )
    place = join(folder, meta)
    content = read_batch(tree.read(place), tree.where(place))
    names = next((content[key] for key in _NAMES if key in content), None)
    try:
        return tuple(name.decode() if isinstance(name, bytes) else str(name) for name in names)  # type: ignore[union-attr]
    except (TypeError, UnicodeDecodeError):
        raise UserError(f"{tree.where(place)} names no classes.", 'Write classes = "cifar10" or "cifar100".') from None


def mnist_tree(tree: Tree) -> ArrayTree:
    """The test images of MNIST. Raises `UserError`."""
    found = mnist(tree, "test")
    return ArrayTree(tree.root, found.classes, found.labels, {"": lambda: found.levels})


def cifar_c_tree(suite: SuiteSpec, tree: Tree) -> ArrayTree:
    """CIFAR-10-C or CIFAR-100-C: CORRUPTION.npy and labels.npy. Raises `UserError`."""
    folder, files = _folder(suite, tree, ("labels.npy",))
    labels = _loaded(tree, join(folder, "labels.npy"))
    count = len(labels) // _SEVERITIES
    blocks = labels[: count * _SEVERITIES].reshape(_SEVERITIES, -1) if labels.ndim == 1 else None
    if blocks is None or labels.dtype.kind not in "iu" or not count or (blocks != blocks[0]).any():
        raise UserError(
            f"{tree.where(join(folder, 'labels.npy'))} does not hold the same labels {_SEVERITIES} times over.",
            "CIFAR-10-C has 50,000: those of the 10,000 test images for each severity.",
        )
    _refuse_other_classes(suite, suite.index, blocks[0].tolist(), tree.where(join(folder, "labels.npy")))

    def levels(name: str, severity: int) -> Levels:
        place = join(folder, f"{name}.npy")
        array = _array_of(tree, place)
        if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] != 3 or len(array) != count * _SEVERITIES:
            raise UserError(
                f"{tree.where(place)} holds {array.dtype} {array.shape}.",
                f"Expected ({count * _SEVERITIES}, height, width, 3) uint8.",
            )
        return array[(severity - 1) * count : severity * count]

    there = [part for part in suite.parts() if f"{part.corruption}.npy" in files]
    parts = {str(part): partial(levels, part.corruption, part.severity) for part in there}
    return ArrayTree(tree.root, suite.index, blocks[0].tolist(), parts)


def _folder(suite: SuiteSpec, tree: Tree, wanted: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """The folder that holds one of these files, at the top or one level below, and its files."""
    top = tree.listing("")
    found = [name for name in ("", *top.folders) if set(wanted) & set(tree.listing(name).files)]
    named = [name for name in found if name.lower() in suite.folders]
    found = named if len(found) > 1 and len(named) == 1 else found
    if len(found) != 1:
        several = f"several data sets ({', '.join(found)})" if found else f"none of {', '.join(wanted)}"
        raise UserError(
            f"{shown(str(tree.root))} is not suite {suite.name!r}: it holds {several}.",
            f'Layout "{suite.layout}" reads what docs/datasets.md shows; pass that folder with --data-dir, or write '
            f'folders = ["its name in lower case"] into the suite.',
        )
    return found[0], tree.listing(found[0]).files


def _refuse_other_classes(suite: SuiteSpec, classes: Sequence[str], labels: Sequence[int], where: str) -> None:
    if not 0 <= min(labels) <= max(labels) < len(classes):
        raise UserError(
            f"{where} has labels from {min(labels)} to {max(labels)}, and suite {suite.name!r} {len(classes)} classes.",
            'Write classes = "cifar10", "cifar100" or the name of a text file, one class a line in the labels\' order.',
        )


def _loaded(tree: Tree, path: str) -> np.ndarray:
    return np.asarray(_array_of(tree, path))


def _array_of(tree: Tree, path: str) -> np.ndarray:
    """An .npy file: mapped into memory where it lies on disk as it is, never unpickled. Raises `UserError`."""
    try:
        raw = tree.raw(path)
        if raw is None:
            array: np.ndarray = np.load(io.BytesIO(tree.read(path)), allow_pickle=False)
            return array
        file, offset, size = raw
        with file.open("rb") as stream:
            stream.seek(offset)
            version = np.lib.format.read_magic(stream)
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
            shape, fortran, kind = read(stream)
            begin = stream.tell()
        if kind.hasobject or begin - offset + math.prod(shape) * kind.itemsize > size:
            raise ValueError("it holds objects, or is cut short")
        return np.memmap(file, kind, "r", begin, shape, "F" if fortran else "C")
    except (UserError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - on damaged bytes, numpy raises whatever its reading runs into
        raise UserError(
            f"{tree.where(path)} cannot be read: {type(error).__name__}: {error}.", "Fetch it again."
        ) from None
