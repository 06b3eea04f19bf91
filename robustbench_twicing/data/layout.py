"""Where a suite's images lie: finding the class folders, and noticing that they are another suite's.

Nothing here reads an image. A class comes from the name of its folder, looked up in the suite's index, never from the
order of folders, so what is stray, missing or hidden can shift no label.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from robustbench_twicing.catalog.suites import class_list, class_list_names, suite, suite_names
from robustbench_twicing.data.archives import Tree, join, open_tree, unreadable_folder
from robustbench_twicing.data.decode import is_image
from robustbench_twicing.errors import UserError
from robustbench_twicing.spec.suite import Part, SuiteSpec

_HELP = "Pass the right folder with --data-dir; docs/datasets.md says what each suite looks like."


@dataclass(frozen=True)
class SuiteFolder:
    """A suite found on disk. No image has been looked at yet."""

    suite: SuiteSpec
    tree: Tree
    roots: Mapping[Part | None, str]
    """The folder of the class folders: of the one data set (None), or of each (corruption, severity) that is there."""

    @property
    def missing(self) -> tuple[Part, ...]:
        """Every (corruption, severity) of the suite that is not there."""
        return tuple(part for part in self.suite.parts() if part not in self.roots)


def find_suite(suite: SuiteSpec, directory: Path) -> SuiteFolder:
    """Find a suite in a folder, an archive, or a folder of archives.

    The folder may be the data set's own or the one above it; in a suite of corruptions, families may lie between.
    Raises `UserError` saying what was found and what was expected.
    """
    if suite.layout == "generated":
        raise UserError(
            f"Suite {suite.name!r} has no files of its own: it is computed from the images of {suite.clean!r}.",
            f"Pass the folder of {suite.clean!r}.",
        )
    tree = open_tree(directory)
    try:
        if suite.layout == "corruptions":
            return SuiteFolder(suite, tree, _corruption_roots(suite, tree))
        return SuiteFolder(suite, tree, {None: _class_root(suite, tree)})
    except OSError as error:
        raise unreadable_folder(str(error.filename or directory), error) from None


@cache
def class_positions(index: tuple[str, ...]) -> Mapping[str, int]:
    """Class name -> position among the model's logits."""
    return {name: position for position, name in enumerate(index)}


def class_of(suite: SuiteSpec, folder: str) -> str | None:
    """The class that a folder's name stands for; None for a stray one. Numbers count only in a numbered suite."""
    if folder in class_positions(suite.index):
        return folder
    if suite.layout == "numbered" and re.fullmatch("[0-9]{1,9}", folder):
        return dict(enumerate(suite.index)).get(int(folder))
    return None


def sample_stem(path: str) -> str:
    """A file's name without folder and ending, which sample ids are made of."""
    name = path.rpartition("/")[2]
    return name.rpartition(".")[0] or name


def class_folders(found: SuiteFolder, part: Part | None) -> dict[str, str]:
    """Class -> path of its folder, stray folders left out.

    Raises `OSError` if the folder cannot be listed, and `UserError` if two folders stand for one class or if the
    classes are those of another suite.
    """
    suite, root = found.suite, found.roots[part]
    where = found.tree.where(root)
    folders: dict[str, str] = {}
    for folder in found.tree.listing(root).folders:
        name = class_of(suite, folder)
        if name is None:
            continue
        if name in folders:
            raise UserError(
                f"{where} holds two folders of class {name}: {sample_stem(folders[name])} and {folder}.",
                "Remove one of them.",
            )
        folders[name] = join(root, folder)
    _refuse_classes_of_another(suite, set(folders), where)
    return folders


def _refuse_classes_of_another(suite: SuiteSpec, classes: set[str], where: str) -> None:
    expected = set(suite.classes)
    others = [name for name in class_list_names() if classes == set(class_list(name)) != expected]
    outside = sorted(classes - expected)
    if outside or others:
        message = f"{where} is not suite {suite.name!r}: expected {expectation(suite)}, found {len(classes):,} classes"
        message += f", {len(outside):,} of which do not belong to it (such as {outside[0]})" if outside else ""
        raise UserError(f"{message}{f'; they are the classes of {others[0]}' if others else ''}.", _HELP)


def refuse_names_of_another(suite: SuiteSpec, path: str, where: str) -> None:
    """Raise `UserError` if an image at `path` is named as another suite names its images, and this suite does not."""
    stem = sample_stem(path)
    if suite.file_names and re.fullmatch(suite.file_names, stem):
        return
    for pattern, other in _file_names().items():
        if re.fullmatch(pattern, stem):
            raise UserError(
                f"{where} is not suite {suite.name!r}: its images are named like those of {other} ({stem}).", _HELP
            )


@cache
def _file_names() -> Mapping[str, str]:
    """File name pattern -> the first suite that has it."""
    specs = [suite(name) for name in suite_names()]
    return {spec.file_names: spec.name for spec in reversed(specs) if spec.file_names}


def expectation(suite: SuiteSpec) -> str:
    """What the folder of a suite should hold, with an example."""
    example = suite.classes[0]
    if suite.layout == "corruptions":
        return f"folders such as {suite.parts()[0]}/{example}"
    numbers = f" or 0 to {len(suite.index) - 1}" if suite.layout == "numbered" else ""
    return f"{len(suite.classes):,} class folders such as {example}{numbers}"


def some(names: Sequence[str]) -> str:
    """The first few of many names, for a message."""
    return ", ".join(names[:4]) + (", …" if len(names) > 4 else "")


def _class_root(suite: SuiteSpec, tree: Tree) -> str:
    """The folder that holds the class folders: the top, or one folder below it."""
    top = tree.listing("").folders
    if any(class_of(suite, folder) for folder in top):
        return ""
    below = [folder for folder in top if any(class_of(suite, name) for name in tree.listing(folder).folders)]
    named = [folder for folder in below if folder.lower() in suite.folders]
    if len(below) > 1 and len(named) != 1:
        raise UserError(
            f"{tree.root} holds several data sets ({some(below)}), and which of them is suite {suite.name!r} "
            "cannot be told.",
            "Pass the folder itself with --data-dir.",
        )
    if not below:
        raise _wrong_folder(suite, tree)
    return named[0] if len(below) > 1 else below[0]


def _corruption_roots(suite: SuiteSpec, tree: Tree) -> dict[Part | None, str]:
    """The folder of each (corruption, severity). A corruption lies at the top, in a family, or one level deeper."""
    wanted = {*suite.common, *suite.extra}
    corruptions: dict[str, str] = {}
    level = [""]
    for _ in range(3):
        paths = [join(folder, name) for folder in level for name in tree.listing(folder).folders]
        level = []
        for path in paths:
            name = path.rpartition("/")[2]
            if name in corruptions:
                raise UserError(
                    f"{tree.root} holds {name} twice: {corruptions[name]} and {path}.",
                    "Remove one of them, or pass the folder above the other with --data-dir.",
                )
            if name in wanted:
                corruptions[name] = path
            elif class_of(suite, name) is None:
                level.append(path)
    severities = {name: tree.listing(path).folders for name, path in corruptions.items()}
    roots: dict[Part | None, str] = {
        part: join(corruptions[part.corruption], str(part.severity))
        for part in suite.parts()
        if str(part.severity) in severities.get(part.corruption, ())
    }
    if not roots:
        raise _wrong_folder(suite, tree)
    return roots


def _wrong_folder(suite: SuiteSpec, tree: Tree) -> UserError:
    folders, files = tree.listing("")
    images = [name for name in files if is_image(name)]
    found = [f"{len(folders):,} folder(s) ({some(folders)})"] if folders else []
    found += [f"{len(images):,} image(s) ({some(images)})"] if images else []
    hint = "Labels come from folder names: sort the images into class folders first. " if images and not folders else ""
    return UserError(
        f"{tree.root} is not suite {suite.name!r}: expected {expectation(suite)}, "
        f"found {' and '.join(found) or 'no folder and no image'}.",
        hint + _HELP,
    )
