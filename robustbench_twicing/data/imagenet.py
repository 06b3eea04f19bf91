"""Data sets in folders named by class, as ImageNet and its relatives come: indexed without decoding, read in place."""

import hashlib
from array import array
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from json import loads
from sys import intern

from PIL import Image

from robustbench_twicing.data.archives import Tree, join, unreadable_folder
from robustbench_twicing.data.contents import (
    Contents,
    SuiteFolder,
    class_positions,
    contents,
    refuse_names_of_another,
    sample_stem,
    some,
)
from robustbench_twicing.data.dataset import Batch
from robustbench_twicing.data.decode import ENDINGS, Unreadable, decode, is_image
from robustbench_twicing.data.order import balanced_order
from robustbench_twicing.data.transforms import prepared, stacked
from robustbench_twicing.errors import UserError, shown
from robustbench_twicing.spec.models import Recipe
from robustbench_twicing.spec.suite import Part


@dataclass(frozen=True)
class ImageFiles:
    """Images in class folders, in balanced order. A `Dataset`.

    A sample's id is CLASS/FILE without the file's ending, so a photograph has the same id in ImageNet and in every
    corrupted copy of it.
    """

    name: str
    classes: int
    sample_ids: tuple[str, ...]
    labels: tuple[int, ...]
    fingerprint: str
    """First 12 hex digits of the SHA-256 of all ids, labels and file sizes, in balanced order. Fast, since no pixel is
    read; so a file that changed and kept its length goes unnoticed."""
    tree: Tree
    folders: Mapping[int, str]
    """Label -> path of the class folder."""
    files: tuple[str, ...]
    sizes: Sequence[int]
    """Bytes of each file; -1 where that could not be found out."""
    image_size: int | None = None
    """Width and height that every image must have, where the suite fixes it."""
    accepted: tuple[tuple[int, ...], ...] | None = None
    """With ReaL labels, or ObjectNet's map, the classes that count as right for each sample; None where only its label
    does."""
    warnings: tuple[str, ...] = ()
    """What is not as in the complete suite; `data check` says it in full."""

    def read(self, positions: Sequence[int], recipes: Sequence[Recipe]) -> Batch:
        """Decode the samples at `positions` once, and compute each distinct recipe once.

        Raises `UserError` for a recipe without a crop where the images have many sizes.
        """
        recipes = tuple(dict.fromkeys(recipes))
        if self.image_size is None and any(recipe.crop is None for recipe in recipes):
            raise UserError(
                f"The images of {self.name!r} have many sizes, so a recipe without a crop cannot make a batch of them.",
                "Use --recipe model or --recipe paper.",
            )
        pictures: dict[Recipe, list[Image.Image]] = {recipe: [] for recipe in recipes}
        readable, errors = [], {}
        for position in positions:
            try:
                image = self._decoded(position)
                views = [prepared(image, recipe) for recipe in recipes]
            except (OSError, Unreadable) as error:
                why = (error.strerror if isinstance(error, OSError) else None) or str(error)
                errors[position] = f"{self.tree.where(self.path(position))}: {shown(why)}"
                continue
            readable.append(position)
            for recipe, view in zip(recipes, views, strict=True):
                pictures[recipe].append(view)
        images = {recipe: stacked(views) for recipe, views in pictures.items()}
        return Batch(tuple(positions), images, tuple(readable), errors)

    def path(self, position: int) -> str:
        """Where in the tree the sample at `position` lies."""
        return join(self.folders[self.labels[position]], self.files[position])

    def _decoded(self, position: int) -> Image.Image:
        image = decode(self.tree.read(self.path(position)))
        if self.image_size is not None and image.size != (self.image_size, self.image_size):
            raise Unreadable(f"{image.width} x {image.height} pixels, not {self.image_size} x {self.image_size}")
        return image

    def of_classes(self, labels: Collection[int], name: str) -> "ImageFiles":
        """The samples of some classes; `name` is added to the data set's own after an @.

        The clean run on the 200 classes of ImageNet-A is `val.of_classes(imagenet_a.mask, "imagenet-a")`.
        """
        wanted = set(labels)
        return self._taken([p for p, label in enumerate(self.labels) if label in wanted], f"{self.name}@{name}")

    def of_ids(self, sample_ids: Collection[str]) -> "ImageFiles":
        """Those of the samples that are named, in the order that they have here."""
        wanted = set(sample_ids)
        return self._taken([p for p, name in enumerate(self.sample_ids) if name in wanted], self.name)

    def _taken(self, kept: Sequence[int], name: str) -> "ImageFiles":
        taken = replace(
            self,
            name=name,
            sample_ids=tuple(self.sample_ids[position] for position in kept),
            labels=tuple(self.labels[position] for position in kept),
            files=tuple(self.files[position] for position in kept),
            sizes=array("q", (self.sizes[position] for position in kept)),
            accepted=self.accepted and tuple(self.accepted[position] for position in kept),
        )
        return replace(taken, fingerprint=_fingerprint(taken))


def _fingerprint(dataset: ImageFiles) -> str:
    digest = hashlib.sha256()
    accepted = dataset.accepted or ((),) * len(dataset.labels)
    for row in zip(dataset.sample_ids, dataset.labels, dataset.sizes, accepted, strict=True):
        digest.update(repr(row).encode())
    return digest.hexdigest()[:12]


def index_images(found: SuiteFolder, part: Part | None = None) -> ImageFiles:
    """The samples of a suite, or of one (corruption, severity) of it. Lists the class folders and asks for file sizes.

    Raises `UserError` if the part is not there, if there is no image, if the images are those of another suite, if two
    files would be one sample, or if a folder cannot be listed.
    """
    if part not in found.roots:
        raise UserError(
            f"{found.tree.root} holds no {part or 'images'} of suite {found.suite.name!r}.",
            f"It holds {some([str(there) for there in found.roots if there])}. Name those to run with --corruption "
            "(such as common, the 15 of the mCE) and --severity."
            if part
            else "A suite of corruptions has no clean images: name its clean data set.",
        )
    suite, tree = found.suite, found.tree
    where = tree.where(found.roots[part])
    positions = class_positions(suite.index)
    sample_ids: list[str] = []
    labels: list[int] = []
    files: list[str] = []
    try:
        inside = contents(found, part)
    except OSError as error:
        raise unreadable_folder(shown(str(error.filename or where)), error) from None
    for name, (folder, images, locked) in inside.classes.items():
        if locked:
            raise unreadable_folder(tree.where(folder), locked)
        # Interned, so that the 95 copies of ImageNet-C share ids and file names: 2 MB each instead of 12.
        sample_ids += [intern(f"{name}/{sample_stem(file)}") for file in images]
        labels += [positions[name]] * len(images)
        files += map(intern, images)
    if not files:
        raise UserError(
            f"{where} holds {len(inside.classes):,} class folders of suite {suite.name!r} and no image in any of them.",
            f"An image's name ends in {', '.join(ENDINGS)}, in any letter case.",
        )
    refuse_names_of_another(suite, files, where)
    _refuse_twins(sample_ids, files, where)
    # Balanced over the files, before unlabelled ones leave, so that ReaL keeps the order of ImageNet.
    order = balanced_order(sample_ids, labels)
    dataset = ImageFiles(
        name=suite.name,
        classes=len(positions),
        sample_ids=tuple(sample_ids[position] for position in order),
        labels=tuple(labels[position] for position in order),
        fingerprint="",
        tree=tree,
        folders={positions[name]: files.folder for name, files in inside.classes.items()},
        files=tuple(files[position] for position in order),
        sizes=(),
        image_size=suite.image_size,
        warnings=_incomplete(found, where, inside),
    )
    dataset = replace(dataset, sizes=array("q", (_size(tree, dataset.path(row)) for row in range(len(files)))))
    if found.accepted:
        accepted = tuple(found.accepted[dataset.path(row)] for row in range(len(files)))
        dataset = replace(dataset, accepted=accepted)
    if suite.labels == "real":
        dataset = _with_real_labels(dataset)
    return replace(dataset, fingerprint=_fingerprint(dataset))


def _refuse_twins(sample_ids: Sequence[str], files: Sequence[str], where: str) -> None:
    first: dict[str, str] = {}
    for sample_id, file in zip(sample_ids, files, strict=True):
        if sample_id in first:
            twins = f"{first[sample_id]} and {file}"
            raise UserError(f"{where}: two files are sample {sample_id}, {twins}.", "Remove one of them.")
        first[sample_id] = file


def _size(tree: Tree, path: str) -> int:
    try:
        return tree.size(path)
    except OSError:  # such as a link that leads nowhere; reading it will say so
        return -1


def _incomplete(found: SuiteFolder, where: str, inside: Contents) -> tuple[str, ...]:
    suite = found.suite
    empty = [files.folder for files in inside.classes.values() if not files.images]
    classes, images = len(inside.classes) - len(empty), sum(len(files.images) for files in inside.classes.values())
    warnings = [f"{where}: no image in {len(empty):,} class folder(s): {some(empty)}"] if empty else []
    if classes != len(suite.classes):
        warnings.append(f"{where}: images of {classes:,} classes; the complete suite has {len(suite.classes):,}")
    if suite.images not in (None, images):
        more = f"{images - suite.images:,} more than the suite's" if images > suite.images else "the complete suite has"
        warnings.append(f"{where}: {images:,} images; {more} {suite.images:,}")
    unlabelled = [path for path in inside.strays if found.labels and is_image(path.rpartition("/")[2])]
    if unlabelled:
        warnings.append(f"{where}: {len(unlabelled):,} image(s) without a label are left out: {some(unlabelled)}")
    beside = [path for path in inside.strays if is_image(path) and not found.labels]
    if suite.own_classes and beside:
        warnings.append(f"{where}: {len(beside):,} image(s) in no class folder are left out: {some(beside)}")
    if suite.own_classes and inside.no_class:
        warnings.append(
            f"{where}: {len(inside.no_class):,} folder(s) without images are no class: {some(inside.no_class)}"
        )
    if found.tree.left_out:
        warnings.append(f"{where}: {len(found.tree.left_out):,} member(s) are left out: {some(found.tree.left_out)}")
    return tuple(warnings)


# --- ReaL labels -------------------------------------------------------------------------------------------------


@cache
def real_labels() -> Mapping[str, tuple[int, ...]]:
    """File name without ending -> the classes that people saw in that image of ImageNet's validation set.

    Beyer et al. 2020, "Are we done with ImageNet?", arXiv 2006.07159; from timm's copy of the authors' real.json:
    50,000 entries, 3,163 of them empty.
    """
    text = files("timm.data").joinpath("_info/imagenet_real_labels.json").read_text(encoding="utf-8")
    return {f"ILSVRC2012_val_{number:08d}": tuple(labels) for number, labels in enumerate(loads(text), start=1)}


def _with_real_labels(dataset: ImageFiles) -> ImageFiles:
    """The samples that have a ReaL label, each with all of its classes accepted."""
    real = real_labels()
    stems = [sample_stem(file) for file in dataset.files]
    for position, stem in enumerate(stems):
        if stem not in real:
            raise UserError(
                f"ReaL labels go by the original file names, and {dataset.tree.where(dataset.path(position))} is none.",
                "ImageNet's validation images are named ILSVRC2012_val_00000001.JPEG to ILSVRC2012_val_00050000.JPEG.",
            )
    dataset = replace(dataset, accepted=tuple(real[stem] for stem in stems))
    return dataset._taken([position for position, stem in enumerate(stems) if real[stem]], dataset.name)
