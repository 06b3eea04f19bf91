"""What lies in a suite's folders: the images of each class, and whether they are another suite's.

Nothing here reads an image. A class comes from the name of its folder, looked up in the suite's index, never from the
order of folders, so what is stray, missing or hidden can shift no label. Only a suite that takes its classes from the
folders themselves has as many classes as there are folders; then each of them must hold an image.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from robustbench_twicing.catalog.suites import class_list, class_list_names, known_suites
from robustbench_twicing.data.archives import Tree, join
from robustbench_twicing.data.decode import is_image
from robustbench_twicing.data.label_files import FORMS, LabelFile, stem
from robustbench_twicing.errors import UserError, shown
from robustbench_twicing.spec.suite import Part, SuiteSpec

HELP = "Pass the right folder with --data-dir; docs/datasets.md says what each suite looks like."
OWN_CLASSES = (
    'Pass the folder that holds the class folders, or write classes = "names.txt" into the suite: a text file with one '
    "class a line, in the order of the model's logits."
)


@dataclass(frozen=True)
class SuiteFolder:
    """A suite found on disk. No image has been looked at yet."""

    suite: SuiteSpec
    """With its classes, also where those are the folders' names."""
    tree: Tree
    roots: Mapping[Part | None, str]
    """The folder of the class folders: of the one data set (None), or of each (corruption, severity) that is there."""
    labels: LabelFile | None = None
    """Where one folder holds the images of all classes: which class each is of."""
    accepted: Mapping[str, tuple[int, ...]] | None = None
    """Where several classes may count: path of each image -> the positions of those that do."""

    @property
    def missing(self) -> tuple[Part, ...]:
        """Every (corruption, severity) of the suite that is not there."""
        return tuple(part for part in self.suite.parts() if part not in self.roots)


class ClassFiles(NamedTuple):
    """What is there of one class."""

    folder: str
    images: tuple[str, ...]
    error: OSError | None = None
    """Why the folder could not be listed."""


@dataclass(frozen=True)
class Contents:
    """What one data set, or one (corruption, severity), holds."""

    classes: Mapping[str, ClassFiles]
    strays: tuple[str, ...] = ()
    """Paths of what is no image of a class, hidden things apart."""
    no_class: tuple[str, ...] = ()
    """Those of them that are folders beside the class folders."""


@cache
def class_positions(index: tuple[str, ...]) -> Mapping[str, int]:
    """Class name -> position among the model's logits."""
    return {name: position for position, name in enumerate(index)}


def class_of(suite: SuiteSpec, folder: str) -> str | None:
    """The class that a folder's name stands for; None for a stray one. Numbers count only in a numbered suite."""
    return _class_of(suite, class_positions(suite.index), folder)


def _class_of(suite: SuiteSpec, positions: Mapping[str, int], folder: str) -> str | None:
    name = shown(folder)
    if name in positions:
        return name
    if suite.layout == "numbered" and re.fullmatch("[0-9]{1,9}", folder):
        return dict(enumerate(suite.index)).get(int(folder))
    return None


def sample_stem(path: str) -> str:
    """A file's name without folder and ending, which sample ids are made of: text that can be written anywhere."""
    return shown(stem(path))


# --- what lies in a data set -----------------------------------------------------------------------------------------


def contents(found: SuiteFolder, part: Part | None) -> Contents:
    """The images of each class, and what is stray.

    Raises `OSError` if the folder cannot be listed, and `UserError` if two folders stand for one class, if the classes
    are those of another suite, or if a folder that names a class of its own holds no image.
    """
    if found.labels:
        return _flat_contents(found, found.roots[part], found.labels)
    top = found.tree.listing(found.roots[part])
    folders, no_class = _class_folders(found, part, top.folders)
    strays = [*no_class, *(join(found.roots[part], name) for name in top.files)]
    classes: dict[str, ClassFiles] = {}
    for name, folder in folders.items():
        try:
            classes[name], more = images_of(found.tree, folder)
            strays += more
        except OSError as error:
            classes[name] = ClassFiles(folder, (), error)
    _refuse_empty_classes(found, part, classes)
    return Contents(classes, tuple(strays), tuple(no_class))


def _class_folders(found: SuiteFolder, part: Part | None, names: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Class -> path of its folder, and the paths of the folders that are no class."""
    suite, root = found.suite, found.roots[part]
    where = found.tree.where(root)
    folders: dict[str, str] = {}
    strays: list[str] = []
    positions = class_positions(suite.index)  # once: finding it takes as long as the index is
    for folder in names:
        name = _class_of(suite, positions, folder)
        if name is None:
            strays.append(join(root, folder))
            continue
        if name in folders:
            raise UserError(
                f"{where} holds two folders of class {name}: {stem(folders[name])} and {folder}.",
                "Remove one of them.",
            )
        folders[name] = join(root, folder)
    _refuse_classes_of_another(suite, set(folders), where)
    return folders, strays


def images_of(tree: Tree, folder: str) -> tuple[ClassFiles, list[str]]:
    """The images of a class folder, or of the folder `images` in it as in Tiny-ImageNet; and what else is there."""
    inside = tree.listing(folder)
    images = tuple(file for file in inside.files if is_image(file))
    strays = [join(folder, file) for file in inside.files if not is_image(file)]
    if not images and "images" in inside.folders:
        below = join(folder, "images")
        deeper = tree.listing(below)
        images = tuple(file for file in deeper.files if is_image(file))
        strays += [join(folder, name) for name in inside.folders if name != "images"]
        strays += [join(below, name) for name in (*deeper.folders, *deeper.files) if not is_image(name)]
        return ClassFiles(below, images), strays
    return ClassFiles(folder, images), [join(folder, name) for name in inside.folders] + strays


def holds_folders_only(tree: Tree, folder: str) -> bool:
    """The folder holds folders and no image, such as the results of a run: it is no class."""
    files = images_of(tree, folder)[0]
    return not files.images and len(tree.listing(folder).folders) > 0


def _flat_contents(found: SuiteFolder, root: str, labels: LabelFile) -> Contents:
    inside = found.tree.listing(root)
    images: dict[str, list[str]] = {}
    strays = [join(root, folder) for folder in inside.folders]
    for file in inside.files:
        name = labels.classes.get(stem(file)) if is_image(file) else None
        if name is None:
            strays.append(join(root, file))
        else:
            images.setdefault(name, []).append(file)
    if not images:
        raise UserError(
            f"{labels.where} has a line for none of the images in {found.tree.where(root)}.",
            f"{FORMS} A file's name counts without its folder and ending.",
        )
    named = [name for name in found.suite.index if name in images]
    _refuse_classes_of_another(found.suite, set(named), found.tree.where(root))
    return Contents({name: ClassFiles(root, tuple(images[name])) for name in named}, tuple(strays))


def _refuse_empty_classes(found: SuiteFolder, part: Part | None, classes: Mapping[str, ClassFiles]) -> None:
    if not found.suite.own_classes:
        return
    empty = [name for name, files in classes.items() if not files.images and not files.error]
    if empty:
        where = found.tree.where(found.roots[part])
        raise UserError(
            f"{where}: no image in {len(empty):,} folder(s), and each folder is a class: {some(empty)}.",
            "Remove or hide what is no class. " + OWN_CLASSES,
        )


def _refuse_classes_of_another(suite: SuiteSpec, classes: set[str], where: str) -> None:
    expected = set(suite.classes)
    others = [name for name in class_list_names() if classes == set(class_list(name)) != expected]
    outside = sorted(classes - expected)
    if outside or others:
        message = f"{where} is not suite {suite.name!r}: expected {expectation(suite)}, found {len(classes):,} classes"
        message += f", {len(outside):,} of which do not belong to it (such as {outside[0]})" if outside else ""
        raise UserError(f"{message}{f'; they are the classes of {others[0]}' if others else ''}.", HELP)


def refuse_names_of_another(suite: SuiteSpec, images: Sequence[str], where: str) -> None:
    """Raise `UserError` if images are named as another suite names its own, or most not as this suite names its own."""
    stems = [sample_stem(path) for path in images]
    odd = [name for name in stems if suite.file_names and not re.fullmatch(suite.file_names, name)]
    if stems and (odd or not suite.file_names):
        first = (odd or stems)[0]
        for pattern, other in _file_names().items():
            if pattern != suite.file_names and re.fullmatch(pattern, first):
                raise UserError(
                    f"{where} is not suite {suite.name!r}: its images are named like those of {other} ({first}).", HELP
                )
    if 2 * len(odd) > len(stems):
        raise UserError(
            f"{where} is not suite {suite.name!r}: {len(odd):,} of {len(stems):,} images are not named like "
            f"{suite.file_names} (such as {odd[0]}).",
            "Training images have other names. For images of your own, write a suite without file_names: see "
            "docs/add-a-suite.md.",
        )


@cache
def _file_names() -> Mapping[str, str]:
    """File name pattern -> the first suite that has it."""
    specs = known_suites().values()
    return {spec.file_names: spec.name for spec in reversed(list(specs)) if spec.file_names}


def expectation(suite: SuiteSpec) -> str:
    """What the folder of a suite should hold, with an example."""
    if not suite.index:
        return "one folder of images for each class"
    example = suite.classes[0]
    if suite.severities:
        return f"folders such as {suite.parts()[0]}/{example}"
    numbers = f" or 0 to {len(suite.index) - 1}" if suite.layout == "numbered" else ""
    return f"{len(suite.classes):,} class folders such as {example}{numbers}"


def some(names: Sequence[str]) -> str:
    """The first few of many names, for a message."""
    return ", ".join(map(shown, names[:4])) + (", …" if len(names) > 4 else "")
