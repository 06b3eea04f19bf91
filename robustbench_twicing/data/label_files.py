"""Text files that say which class each image of one folder is of, where the images lie in no class folders."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from robustbench_twicing.data.archives import FolderTree, Tree, join
from robustbench_twicing.data.decode import is_image
from robustbench_twicing.errors import UserError
from robustbench_twicing.spec.suite import SuiteSpec

GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
KNOWN = (
    "LOC_val_solution.csv",
    "ILSVRC2012_validation_synset_labels.txt",
    "imagenet_2012_validation_synset_labels.txt",
    "synset_labels.txt",
    GROUND_TRUTH,
    "val_annotations.txt",
)
"""Names that are looked for: Kaggle's, TensorFlow's and the devkit's for ImageNet, and Tiny-ImageNet's."""

FORMS = (
    "Taken are a text with FILE CLASS on each line (Tiny-ImageNet's val_annotations.txt, or your own, named by the key "
    "label_file), Kaggle's LOC_val_solution.csv, a text with one wnid for each of ImageNet's validation images in "
    f"their order, and the devkit's {GROUND_TRUTH} with its meta.mat or a map_clsloc.txt beside it."
)

_PLACES = ("", "ILSVRC2012_devkit_t12/data", "devkit/data", "data")
_VALIDATION = "ILSVRC2012_val_{:08d}"


class LabelFile(NamedTuple):
    """Which class each image is of."""

    where: str
    classes: Mapping[str, str]
    """File name without folder and ending -> class."""


def stem(path: str) -> str:
    """A file's name without folder and ending."""
    name = path.rpartition("/")[2]
    return name.rpartition(".")[0] or name


def find_labels(suite: SuiteSpec, tree: Tree, folder: str) -> LabelFile | None:
    """The labels of the images in `folder`: a file in it, above it, in a devkit there, or beside the tree on disk.

    Raises `UserError` for a file that is there and cannot be understood.
    """
    names = (suite.label_file,) if suite.label_file else KNOWN
    parent = folder.rpartition("/")[0]
    beside = FolderTree(tree.root.absolute().parent)
    for base, above in dict.fromkeys([(tree, folder), (tree, parent), (tree, ""), (beside, "")]):
        for place in (join(above, place) for place in _PLACES):
            files = _files(base, place)
            for name in names:
                if name in files:
                    return _read(suite, base, join(place, name), files)
    return None


def _files(tree: Tree, folder: str) -> tuple[str, ...]:
    try:
        return tree.listing(folder).files
    except OSError:  # most of the places are not there
        return ()


def _read(suite: SuiteSpec, tree: Tree, path: str, beside: Iterable[str]) -> LabelFile:
    where = tree.where(path)
    try:
        text = tree.read(path).decode("utf-8-sig")
        rows = list(_rows(text, path))
        if path.endswith(GROUND_TRUTH):
            rows = _with_wnids(rows, tree, path.rpartition("/")[0], beside)
    except (OSError, ValueError, csv.Error) as error:  # UnicodeDecodeError too
        raise UserError(f"The labels {where} cannot be read: {error}.", FORMS) from None
    classes = {stem(file): name for file, name in rows}
    if (
        suite.index
        and all(name.isdecimal() for name in classes.values())
        and not set(classes.values()) <= {*suite.index}
    ):
        wrong = [name for name in classes.values() if int(name) >= len(suite.index)]
        classes = {} if wrong else {file: suite.index[int(name)] for file, name in classes.items()}
    unknown = sorted({*classes.values()} - {*suite.index}) if suite.index else []
    if not classes or unknown:
        example = f", such as {unknown[0]}" if unknown else ""
        raise UserError(
            f"The labels {where} do not name classes of suite {suite.name!r}{example}.",
            f"{FORMS} A number is the position of a class in the index, from 0.",
        )
    return LabelFile(where, classes)


def _rows(text: str, path: str) -> Iterator[tuple[str, str]]:
    """(file, class) for each line. Raises `ValueError`."""
    if path.endswith(".csv"):
        for number, fields in enumerate(csv.reader(io.StringIO(text))):
            if number == 0 and fields and not is_image(fields[0]) and not re.search(r"\d", fields[0]):
                continue  # the names of the columns
            if fields:
                words = fields[1].split() if len(fields) > 1 else []
                if not words:
                    raise ValueError(f"line {number + 1} has no class")
                yield fields[0], words[0]  # Kaggle's goes on with a box
        return
    lines = [line.split("\t") if "\t" in line else line.split() for line in text.splitlines() if line.strip()]
    if lines and all(len(line) == 1 for line in lines):
        for number, (name,) in enumerate(lines, start=1):
            yield _VALIDATION.format(number), name
        return
    for number, fields in enumerate(lines, start=1):
        if len(fields) < 2:
            raise ValueError(f"line {number} does not hold FILE CLASS")
        yield fields[0], fields[1].strip()


def _with_wnids(
    rows: Iterable[tuple[str, str]], tree: Tree, folder: str, beside: Iterable[str]
) -> list[tuple[str, str]]:
    """The devkit numbers classes in an order of its own, which meta.mat or map_clsloc.txt explains."""
    if "map_clsloc.txt" in beside:  # "n02119789 1 kit_fox"
        lines = tree.read(join(folder, "map_clsloc.txt")).decode().splitlines()
        wnids = {fields[1]: fields[0] for fields in (line.split() for line in lines) if len(fields) > 1}
    elif "meta.mat" in beside:
        wnids = _of_meta(tree.read(join(folder, "meta.mat")))
    else:
        raise ValueError("it numbers classes in an order of its own, and neither meta.mat nor map_clsloc.txt is there")
    unknown = next((name for _, name in rows if name not in wnids), None)
    if unknown is not None:
        raise ValueError(f"no class has the number {unknown}")
    return [(file, wnids[name]) for file, name in rows]


def _of_meta(content: bytes) -> dict[str, str]:
    from scipy.io import loadmat

    try:
        synsets = loadmat(io.BytesIO(content), squeeze_me=True)["synsets"]
        return {str(int(row["ILSVRC2012_ID"])): str(row["WNID"]) for row in synsets}
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - on a damaged file, its parser raises whatever its reading runs into
        raise ValueError(f"meta.mat is damaged ({type(error).__name__}: {error})") from None
