"""Shards as WebDataset writes them: tars that hold KEY.jpg beside KEY.cls or KEY.json
(https://github.com/webdataset/webdataset)."""

import json
from collections.abc import Mapping
from itertools import pairwise

from robustbench_twicing.data.archives import ArchiveTree, Tree
from robustbench_twicing.data.decode import is_image
from robustbench_twicing.data.labelled import InTree, Picture, labelled_tree, split_of
from robustbench_twicing.errors import UserError, shown
from robustbench_twicing.spec.suite import SuiteSpec

_LABELS = (".cls", ".json")
"""Endings of labels, in this order."""
_KEYS = ("label", "cls", "class", "class_id", "target")
"""Of a label in a .json."""
_LOOKED_AT = 200


def holds_samples(tree: ArchiveTree) -> bool:
    """The top of an archive holds images with labels beside them."""
    files = set(tree.listing("").files)
    some = [name for name in sorted(files)[: 4 * _LOOKED_AT] if is_image(name)][:_LOOKED_AT]
    return any(_key(name) + ending in files for name in some for ending in _LABELS)


def webdataset_tree(suite: SuiteSpec, tree: ArchiveTree) -> tuple[SuiteSpec, Tree]:
    """Shards as a tree of class folders, and the suite with its classes. Of a folder that holds shards to train on as
    well, only the others count. Raises `UserError`."""
    tree = _without_training(tree)
    files = tree.listing("").files
    twins = next((one for one, other in pairwise(files) if one == other), None)
    if twins is not None:
        raise UserError(
            f"Two shards in {shown(str(tree.root))} hold {shown(twins)}, so the one cannot be told from the other.",
            "Pass one of them, or write the shards again with keys of their own.",
        )
    images = [name for name in files if is_image(name)]
    there = set(files)
    listed = [Picture("", name, _label(tree, _key(name), there)) for name in images]
    return labelled_tree(suite, tree.root, listed, (), InTree(tree, images))


def _key(name: str) -> str:
    return name.partition(".")[0]


def _without_training(tree: ArchiveTree) -> ArchiveTree:
    kept = [archive for archive in tree.archives if not split_of(archive.stem).startswith("train")]
    return ArchiveTree(tree.root, kept) if kept and len(kept) < len(tree.archives) else tree


def _label(tree: Tree, key: str, files: set[str]) -> int | str | None:
    """What lies beside an image; None if nothing does."""
    beside = next((key + ending for ending in _LABELS if key + ending in files), None)
    if beside is None:
        return None
    try:
        text = tree.read(beside).decode().strip()
        said = _of_json(json.loads(text)) if beside.endswith(".json") else text
    except (OSError, ValueError) as error:
        raise UserError(f"{tree.where(beside)} cannot be read: {error}.", "Fetch its shard again.") from None
    if isinstance(said, bool) or not isinstance(said, int | str) or said == "":
        raise UserError(
            f"{tree.where(beside)} holds no label.",
            f"A .cls holds a number or a name; a .json has it under {', '.join(_KEYS)}.",
        )
    return int(said) if isinstance(said, str) and said.lstrip("-").isdecimal() else said


def _of_json(content: object) -> object:
    found: Mapping[str, object] = content if isinstance(content, dict) else {}
    return next((found[key] for key in _KEYS if key in found), None)
