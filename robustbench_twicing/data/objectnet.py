"""ObjectNet as its authors publish it, as a tree of ImageNet's classes (Barbu et al. 2019, https://objectnet.dev).

A folder is an object, such as `alarm_clock`, for which several classes of ImageNet may count. The download itself says
which, in `mappings/` beside `images/`, so no map of ours stands between. Every image has a red border, two pixels wide,
that is cut off, as its authors ask.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from robustbench_twicing.data.archives import Tree, join
from robustbench_twicing.data.decode import Unreadable, decode, is_image, ppm
from robustbench_twicing.data.labelled import InTree, LabelledTree
from robustbench_twicing.errors import UserError, shown
from robustbench_twicing.spec.suite import SuiteSpec

_BORDER = 2
_FOLDERS, _CLASSES = "folder_to_objectnet_label.json", "objectnet_to_imagenet_1k.json"
_NUMBERS, _LABELS = "pytorch_to_imagenet_2012_id.json", "imagenet_to_label_2012_v2"
_HELP = "Pass the folder objectnet-1.0 as it is unpacked, with images/ and mappings/ in it."


class ObjectNet(NamedTuple):
    """The suite with the classes that are there, its tree, and what counts as right."""

    suite: SuiteSpec
    tree: Tree
    accepted: Mapping[str, tuple[int, ...]]
    """Path in the tree -> positions of the classes that count as right."""


def objectnet(suite: SuiteSpec, tree: Tree) -> ObjectNet:
    """The images of objects that are classes of ImageNet, each under the first of its classes. Raises `UserError`."""
    top = next((one for one in ("", *tree.listing("").folders) if _is_top(tree, one)), None)
    if top is None:
        raise UserError(f"{shown(str(tree.root))} holds no images/ with mappings/ beside it.", _HELP)
    files: dict[str, dict[str, int]] = {}
    accepted: dict[str, tuple[int, ...]] = {}
    paths: list[str] = []
    images = join(top, "images")
    there = set(tree.listing(images).folders)
    for folder, classes in sorted(_classes_of(suite, tree, join(top, "mappings")).items()):
        place, name = join(images, folder), suite.index[classes[0]]
        for file in filter(is_image, tree.listing(place).files if folder in there else ()):
            files.setdefault(name, {})[f"{folder}-{file}"] = len(paths)
            accepted[f"{name}/{folder}-{file}"] = classes
            paths.append(join(place, file))
    named = suite.model_copy(update={"classes": tuple(name for name in suite.index if name in files)})
    return ObjectNet(named, LabelledTree(tree.root, {"": files}, _Unframed(tree, paths), []), accepted)


def _is_top(tree: Tree, folder: str) -> bool:
    return {"images", "mappings"} <= {*tree.listing(folder).folders}


def _classes_of(suite: SuiteSpec, tree: Tree, folder: str) -> dict[str, tuple[int, ...]]:
    """Folder of images -> positions of its classes among the logits; of the objects alone that ImageNet knows."""
    try:
        objects = {label: name for name, label in _json(tree, folder, _FOLDERS).items()}
        positions = {line: int(position) for position, line in _json(tree, folder, _NUMBERS).items()}
        lines = tree.read(join(folder, _LABELS)).decode().splitlines()
        labels = {label.strip(): positions[line] for line, label in enumerate(lines) if line in positions}
        found = {
            objects[name]: tuple(sorted(labels[label.strip()] for label in text.split("; ")))
            for name, text in _json(tree, folder, _CLASSES).items()
        }
    except KeyError as error:
        raise UserError(f"{tree.where(folder)}: its files do not fit together: no {error}.", _HELP) from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{tree.where(folder)} cannot be read: {error}.", _HELP) from None
    outside = [one for classes in found.values() for one in classes if not 0 <= one < len(suite.index)]
    if outside or not found:
        raise UserError(f"{tree.where(folder)} names no classes of ImageNet.", _HELP)
    return found


def _json(tree: Tree, folder: str, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(tree.read(join(folder, name)))
    return content


class _Unframed(InTree):
    """The images without their border."""

    def read(self, number: int) -> bytes:
        """As a PPM, which loses nothing. Raises `OSError`."""
        try:
            picture = decode(super().read(number))
        except Unreadable as error:
            raise OSError(str(error)) from None
        width, height = picture.size
        if min(width, height) <= 2 * _BORDER:
            raise OSError(f"{width} x {height} pixels, and a border of {_BORDER}")
        inner = picture.crop((_BORDER, _BORDER, width - _BORDER, height - _BORDER))
        return ppm(*inner.size, inner.tobytes())

    def raw(self, number: int) -> None:
        return None
