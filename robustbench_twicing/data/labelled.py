"""Pictures that a table or a tar lists with a label each, as a tree of class folders."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from robustbench_twicing.data.archives import Listing, Tree
from robustbench_twicing.data.decode import is_image
from robustbench_twicing.data.label_files import stem
from robustbench_twicing.errors import UserError, shown
from robustbench_twicing.spec.suite import SuiteSpec

EVALUATED = ("val", "validation", "valid", "test", "testing", "dev", "eval")
"""Names of folders, and parts of names of files, that hold a whole data set to evaluate on."""


class Picture(NamedTuple):
    """One picture before it has a folder."""

    split: str
    """Such as `validation`; "" for none."""
    name: str
    """Of its file; "" for none. It need not be unique."""
    label: int | str | None
    """A number, or a class's name; None for none."""


@runtime_checkable
class Pictures(Protocol):
    """Where pictures lie, each by its number. Safe to read from several threads."""

    def size(self, number: int) -> int: ...

    def read(self, number: int) -> bytes:
        """The file's contents. Raises `OSError`."""
        ...

    def raw(self, number: int) -> tuple[Path, int, int] | None:
        """As `Tree.raw`."""
        ...

    def where(self, number: int) -> str: ...


class InTree:
    """Files of another tree. A `Pictures`."""

    def __init__(self, tree: Tree, paths: Sequence[str]) -> None:
        self._tree, self._paths = tree, paths

    def size(self, number: int) -> int:
        return self._tree.size(self._paths[number])

    def read(self, number: int) -> bytes:
        return self._tree.read(self._paths[number])

    def raw(self, number: int) -> tuple[Path, int, int] | None:
        return self._tree.raw(self._paths[number])

    def where(self, number: int) -> str:
        return self._tree.where(self._paths[number])


class LabelledTree:
    """Pictures as [SPLIT/]CLASS/FILE. A `Tree`."""

    def __init__(
        self, root: Path, files: Mapping[str, Mapping[str, Mapping[str, int]]], pictures: Pictures, left_out: list[str]
    ) -> None:
        """`files`: split -> class -> file -> its number."""
        self.root = root
        self.left_out: tuple[str, ...] = tuple(left_out)
        self._pictures = pictures
        self._files: dict[str, dict[str, int]] = {}
        self._folders: dict[str, tuple[str, ...]] = {"": tuple(sorted(files if [*files] != [""] else files[""]))}
        for split, classes in files.items():
            if split:
                self._folders[split] = tuple(sorted(classes))
            for name, numbers in classes.items():
                self._files[f"{split}/{name}".lstrip("/")] = dict(sorted(numbers.items()))

    def listing(self, folder: str) -> Listing:
        if folder in self._folders:
            return Listing(self._folders[folder], ())
        if folder not in self._files:
            raise FileNotFoundError(2, "no such folder", folder)
        return Listing((), tuple(self._files[folder]))

    def _number(self, path: str) -> int:
        folder, _, name = path.rpartition("/")
        number = self._files.get(folder, {}).get(name)
        if number is None:
            raise FileNotFoundError(2, "no such picture", path)
        return number

    def size(self, path: str) -> int:
        return self._pictures.size(self._number(path))

    def read(self, path: str) -> bytes:
        return self._pictures.read(self._number(path))

    def raw(self, path: str) -> tuple[Path, int, int] | None:
        return self._pictures.raw(self._number(path))

    def where(self, path: str) -> str:
        folder, _, name = path.rpartition("/")
        number = self._files.get(folder, {}).get(name)
        return shown(f"{self.root}: {path or 'top'}") if number is None else self._pictures.where(number)


def split_of(name: str) -> str:
    """The part of a file's name that says which split it holds: `validation` of validation-00000-of-00014; "" if none
    does."""
    words = re.split(r"[^a-z]+", name.lower())
    return next((word for word in words if word in EVALUATED or word.startswith("train")), "")


def labelled_tree(
    suite: SuiteSpec, root: Path, listed: Sequence[Picture], names: Sequence[str], pictures: Pictures
) -> tuple[SuiteSpec, Tree]:
    """The tree, and the suite with its classes: without an index of its own they are `names`, in the labels' order.

    A number is the position of a class among `names`; where these are no classes of the suite, or there are none, the
    position in its index. Raises `UserError` if the labels are not those of the suite.
    """
    names = [_folder_name(name) for name in names]
    order = _order(suite, names, listed, shown(str(root)))
    files: dict[str, dict[str, dict[str, int]]] = defaultdict(lambda: defaultdict(dict))
    unlabelled: dict[str, int] = defaultdict(int)
    own_names = _distinct(listed)
    for number, (split, name, label) in enumerate(listed):
        if label is None or (isinstance(label, int) and label < 0):
            unlabelled[split] += 1
            continue
        if isinstance(label, int) and label >= len(order):
            raise _too_large(suite, label, len(order), pictures.where(number))
        folder = order[label] if isinstance(label, int) else _folder_name(label)
        file = _file_name(name, folder, pictures.where(number)) if split in own_names else f"{number:08d}.jpg"
        files[split][folder][file] = number
    left_out = [
        f"{count:,} row(s) without a label{f' in {split}' if split else ''}"
        for split, count in unlabelled.items()
        if split in files  # a split without any label, such as the test images of ImageNet, is no data set
    ]
    if not suite.index:
        suite = suite.model_copy(update={"index": tuple(order), "classes": tuple(order)})
    ordered = {split or ("" if len(files) == 1 else "unnamed"): classes for split, classes in files.items()}
    return suite, LabelledTree(root, ordered, pictures, left_out)


def _order(suite: SuiteSpec, names: Sequence[str], listed: Sequence[Picture], where: str) -> Sequence[str]:
    """The classes that numbers stand for."""
    if not suite.index:
        if not names:
            labels = {label for _, _, label in listed if label is not None}
            texts = sorted(_folder_name(label) for label in labels if isinstance(label, str))
            numbers = [label for label in labels if isinstance(label, int)]
            names = texts or [str(number) for number in range(max(numbers, default=-1) + 1)]
        if len(set(names)) < len(names):
            raise UserError(
                f"{where} names a class twice.", 'Write the classes into a text file: classes = "names.txt".'
            )
        return names
    if names and set(names) <= set(suite.index):
        return names
    if names and len(names) != len(suite.index):
        raise UserError(
            f"{where} is not suite {suite.name!r}: it names {len(names):,} classes ({names[0]}, …), and the suite's "
            f"index has {len(suite.index):,}.",
            "Take the suite whose data it is; with classes of its own, --data folder:DIR.",
        )
    return suite.index


def _too_large(suite: SuiteSpec, label: int, classes: int, where: str) -> UserError:
    return UserError(
        f"{where} has the label {label}, and there are {classes:,} classes.",
        f"Labels of {suite.name!r} are positions in the list of its classes, from 0.",
    )


def _folder_name(name: str) -> str:
    return shown(name).replace("/", "_") or "_"


_WNID = re.compile(r"(.+)_(n\d{8})")


def _file_name(name: str, folder: str, where: str) -> str:
    """The file's name, without the class that Hugging Face's ImageNet puts behind it, which must be `folder`."""
    base = name.replace("\\", "/").rpartition("/")[2]
    with_class = _WNID.fullmatch(stem(base))
    if with_class and re.fullmatch(r"n\d{8}", folder):
        if with_class[2] != folder:
            raise UserError(
                f"{where} is named {base}, and its label stands for {folder}.",
                "Its labels are in another order than the suite's classes: it cannot be read as this suite.",
            )
        base = base.replace(f"_{with_class[2]}", "")
    return base if is_image(base) else f"{base}.jpg"


def _distinct(listed: Sequence[Picture]) -> set[str]:
    """The splits in which every picture has a name of its own, so that it can be known by it."""
    seen: dict[str, set[str]] = defaultdict(set)
    count: dict[str, int] = defaultdict(int)
    for split, name, _ in listed:
        base = stem(name.replace("\\", "/"))
        if base:
            seen[split].add(shown(base))
        count[split] += 1
    return {split for split in count if len(seen[split]) == count[split]}
