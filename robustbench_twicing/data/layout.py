"""Where a suite lies: the folder of its class folders, in a folder, an archive or a folder of archives."""

from collections.abc import Sequence
from pathlib import Path

from robustbench_twicing.data.archives import ArchiveTree, FolderTree, Tree, join, open_tree, unreadable_folder
from robustbench_twicing.data.cifar import cifar_c_tree, cifar_tree, mnist_tree
from robustbench_twicing.data.contents import (
    HELP,
    OWN_CLASSES,
    SuiteFolder,
    class_of,
    expectation,
    holds_folders_only,
    images_of,
    some,
)
from robustbench_twicing.data.decode import is_image
from robustbench_twicing.data.foreign import foreign_layout
from robustbench_twicing.data.label_files import FORMS, LabelFile, find_labels
from robustbench_twicing.data.labelled import EVALUATED
from robustbench_twicing.data.objectnet import objectnet
from robustbench_twicing.data.tables import ENDINGS, table_tree, tables_in
from robustbench_twicing.data.webdataset import holds_samples, webdataset_tree
from robustbench_twicing.errors import UserError, shown
from robustbench_twicing.machine.remote import RemotePath
from robustbench_twicing.spec.suite import Part, SuiteSpec

_MOST_CLASSES = 50_000
"""That folders may name: more are images that lie in a folder each."""

_CLASS_FOLDERS = ("classes", "numbered", "imagefolder")
"""Layouts whose images may also lie in tables, or in shards of WebDataset."""


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
    named_so = directory.suffix.lower() in ENDINGS and not isinstance(directory, RemotePath)
    try:
        if suite.layout in _CLASS_FOLDERS and named_so and directory.is_file():
            return _found(*table_tree(suite, directory, [directory]))
        tree = open_tree(directory)
        if suite.layout in _CLASS_FOLDERS and not _holds_classes(suite, tree, ""):
            suite, tree = _by_labels(suite, tree)
        if suite.layout == "objectnet":
            suite, tree, accepted = objectnet(suite, tree)
            return SuiteFolder(suite, tree, {None: ""}, accepted=accepted)
        if suite.layout == "cifar":
            suite, tree = cifar_tree(suite, tree)
        if suite.layout == "mnist":
            tree = mnist_tree(tree)
        if suite.layout == "cifar-c":
            tree = cifar_c_tree(suite, tree)
        if suite.severities:
            return _with_classes(SuiteFolder(suite, tree, _corruption_roots(suite, tree)))
        return _found(suite, tree)
    except OSError as error:
        raise unreadable_folder(str(error.filename or directory), error) from None


def _found(suite: SuiteSpec, tree: Tree) -> SuiteFolder:
    root, labels = _class_root(suite, tree)
    return _with_classes(SuiteFolder(suite, tree, {None: root}, labels))


def _by_labels(suite: SuiteSpec, tree: Tree) -> tuple[SuiteSpec, Tree]:
    """What holds tables or shards, as class folders; anything else as it is."""
    if isinstance(tree, FolderTree) and (tables := tables_in(tree)):
        return table_tree(suite, tree.root, [tree.root / table for table in tables])
    if isinstance(tree, ArchiveTree) and holds_samples(tree):
        return webdataset_tree(suite, tree)
    return suite, tree


def _with_classes(found: SuiteFolder) -> SuiteFolder:
    """The suite with the classes that its folders name, if it has no list of them."""
    if found.suite.index:
        return found
    root = next(iter(found.roots.values()))
    if found.labels:
        names = sorted(set(found.labels.classes.values()))
    else:
        folders = found.tree.listing(root).folders
        few = len(folders) <= _MOST_CLASSES  # else there is no need to look into each of them
        names = sorted(shown(n) for n in folders if not (few and holds_folders_only(found.tree, join(root, n))))
    if len(names) > _MOST_CLASSES:
        raise UserError(
            f"{found.tree.where(root)} holds {len(names):,} folders of images ({names[0]}, …), and each names a class.",
            f"No more than {_MOST_CLASSES:,} can be classes; ImageNet-21k has 21,841. {OWN_CLASSES}",
        )
    if len(names) < 2 or len(set(names)) < len(names):
        raise UserError(
            f"{found.tree.where(root)} names the classes of suite {found.suite.name!r}, and they are {some(names)}.",
            "Two class folders are needed at least. " + OWN_CLASSES,
        )
    named = found.suite.model_copy(update={"index": tuple(names), "classes": tuple(names)})
    return SuiteFolder(named, found.tree, found.roots, found.labels)


def _class_root(suite: SuiteSpec, tree: Tree) -> tuple[str, LabelFile | None]:
    """The folder that holds the class folders: the top, or one folder below it; or images whose labels lie in a file.

    A folder of training images is never it, unless the suite names it.
    """
    top = tree.listing("").folders
    if _holds_classes(suite, tree, ""):
        return "", None
    candidates = [name for name in top if name.lower() in suite.folders or not _is_training(name)]
    below = [name for name in candidates if _holds_classes(suite, tree, name)]
    if below:
        return _the_one(suite, tree, below), None
    flat = _flat_folders(tree, candidates)
    if len(flat) == 1 or _named(suite, flat):
        root = _the_one(suite, tree, flat)
        labels = find_labels(suite, tree, root)
        if labels is None and foreign_layout(tree) is None:
            raise _without_labels(suite, tree, root, [name for name in top if name not in candidates])
        if labels is not None:
            return root, labels
    raise _wrong_folder(suite, tree, [name for name in top if name not in candidates])


def _is_training(name: str) -> bool:
    return name.lower().startswith("train") or name.lower().endswith("train")


def _holds_classes(suite: SuiteSpec, tree: Tree, root: str) -> bool:
    folders = tree.listing(root).folders
    if suite.index:
        return any(class_of(suite, folder) for folder in folders)
    apart = [folder for folder in folders if _is_training(folder) or folder.lower() in (*EVALUATED, *suite.folders)]
    if len(apart) == len(folders) or folders == ("images",):
        return False
    looked_at = [*folders[:5], *apart]
    images = [bool(images_of(tree, join(root, folder))[0].images) for folder in dict.fromkeys(looked_at)]
    return all(images) if apart else any(images)


def _flat_folders(tree: Tree, candidates: Sequence[str]) -> list[str]:
    """Folders that hold images themselves: the top, or some below it, or the folder `images` in one of them."""
    if any(map(is_image, tree.listing("").files)):
        return [""]
    found = []
    for folder in candidates:
        inside = tree.listing(folder)
        if any(map(is_image, inside.files)):
            found.append(folder)
        elif "images" in inside.folders:
            found.append(join(folder, "images"))
    return found


def _the_one(suite: SuiteSpec, tree: Tree, folders: Sequence[str]) -> str:
    if len(folders) == 1:
        return folders[0]
    named = _named(suite, folders)
    if len(named) != 1:
        raise UserError(
            f"{shown(str(tree.root))} holds several data sets ({some(named or folders)}), and which of them is suite "
            f"{suite.name!r} cannot be told.",
            "Pass the folder itself with --data-dir, or write its name into the suite, such as "
            f'folders = ["{shown((named or folders)[0]).lower()}"].',
        )
    return named[0]


def _named(suite: SuiteSpec, folders: Sequence[str]) -> list[str]:
    """Those that are called as the suite says, or as data sets to evaluate on are called."""
    wanted = suite.folders or (EVALUATED if suite.own_classes else ())
    return [folder for folder in folders if folder.partition("/")[0].lower() in wanted]


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
                    f"{shown(str(tree.root))} holds {name} twice: {corruptions[name]} and {path}.",
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
        raise _wrong_folder(suite, tree, [])
    return roots


def _training_remark(training: Sequence[str]) -> str:
    return f" {some(training)} is left alone: training images are never a validation set." if training else ""


def _without_labels(suite: SuiteSpec, tree: Tree, root: str, training: Sequence[str]) -> UserError:
    images = [name for name in tree.listing(root).files if is_image(name)]
    at = f"{root}/ in it" if root else "it"
    return UserError(
        f"{shown(str(tree.root))} is not suite {suite.name!r}: expected {expectation(suite)}, found {len(images):,} "
        f"image(s) in no class folder ({some(images)}), and no file with their labels.{_training_remark(training)}",
        f"Labels come from folder names: sort the images into class folders, or put a file with their labels into {at} "
        f"or beside it. {FORMS}",
    )


def _wrong_folder(suite: SuiteSpec, tree: Tree, training: Sequence[str]) -> UserError:
    folders, files = tree.listing("")
    foreign = foreign_layout(tree)
    images = [name for name in files if is_image(name)]
    found = [f"{len(folders):,} folder(s) ({some(folders)})"] if folders else []
    found += [f"{len(images):,} image(s) ({some(images)})"] if images else []
    what = f"what looks like {foreign}" if foreign else " and ".join(found) or "no folder and no image"
    hint = (
        f"Images are read from folders, tars and zips, CLASS/IMAGE: write them out first. {HELP}" if foreign else HELP
    )
    if not foreign and any(_holds_own_classes(tree, name) for name in ("", *folders[:5])):
        hint = f'If its folders are classes of your own, write layout = "imagefolder" into a suite TOML. {HELP}'
    return UserError(
        f"{shown(str(tree.root))} is not suite {suite.name!r}: expected {expectation(suite)}, found {what}."
        f"{_training_remark(training)}",
        hint,
    )


def _holds_own_classes(tree: Tree, folder: str) -> bool:
    try:
        below = tree.listing(folder).folders[:5]
        return len(below) > 1 and all(any(map(is_image, tree.listing(join(folder, name)).files)) for name in below)
    except OSError:
        return False
