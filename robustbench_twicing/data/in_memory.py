"""A data set that fits into memory, such as the embedded one or a few images in a test."""

import hashlib
from collections.abc import Collection, Sequence

import torch
from jaxtyping import UInt8

from robustbench_twicing.data.dataset import Batch
from robustbench_twicing.data.order import balanced_order
from robustbench_twicing.errors import UserError
from robustbench_twicing.spec.models import Recipe


class MemoryDataset:
    """8-bit RGB images in memory, in balanced order. A `Dataset`.

    `pixels` (samples, 3, height, width) hold 0..255; `read` gives them as exact multiples of 1/255 in float32. There is
    no preprocessing: the only recipe is `Recipe()`.
    """

    sample_ids: Sequence[str]
    labels: Sequence[int]

    def __init__(
        self,
        name: str,
        classes: int,
        sample_ids: Sequence[str],
        labels: Sequence[int],
        pixels: UInt8[torch.Tensor, "samples 3 height width"],
    ) -> None:
        order = balanced_order(sample_ids, labels)
        self.name = name
        self.classes = classes
        self.sample_ids = tuple(sample_ids[position] for position in order)
        self.labels = tuple(int(labels[position]) for position in order)
        self._pixels = pixels[order]
        digest = hashlib.sha256(repr((self.sample_ids, self.labels, tuple(self._pixels.shape))).encode())
        digest.update(self._pixels.numpy().tobytes())
        self.fingerprint = digest.hexdigest()[:12]

    def of_ids(self, sample_ids: Collection[str]) -> "MemoryDataset":
        """Those of the samples that are named."""
        wanted = set(sample_ids)
        kept = [position for position, name in enumerate(self.sample_ids) if name in wanted]
        named = [self.sample_ids[position] for position in kept]
        labels = [self.labels[position] for position in kept]
        return MemoryDataset(self.name, self.classes, named, labels, self._pixels[kept])

    def read(self, positions: Sequence[int], recipes: Sequence[Recipe]) -> Batch:
        """The samples at `positions`; all can be read. Raises `UserError` for a recipe other than `Recipe()`."""
        for recipe in recipes:
            if recipe != Recipe():
                raise UserError(
                    f"Data set {self.name!r} has no recipe {recipe.id!r}.",
                    "Its images are used as they are: the only recipe is none.",
                )
        images = self._pixels[list(positions)].to(torch.float32) / 255
        return Batch(tuple(positions), dict.fromkeys(recipes, images), tuple(positions))
