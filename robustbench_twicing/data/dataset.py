"""What a data set is, whatever it lies in."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from robustbench_twicing.spec.models import Recipe
from robustbench_twicing.tensors import Images


@dataclass(frozen=True)
class Batch:
    """Some samples of a data set, decoded once, in each of the recipes asked for.

    `images[recipe]` has one row per readable sample, in the order of `readable`.
    """

    positions: tuple[int, ...]
    images: Mapping[Recipe, Images]
    readable: tuple[int, ...]
    """Positions that could be read, a subset of `positions` in the same order."""
    errors: Mapping[int, str] = field(default_factory=dict)
    """Why each of the others could not be read, naming the file."""


@runtime_checkable
class Dataset(Protocol):
    """Samples with stable ids and true labels.

    The order of the samples is fixed and class-balanced (see `balanced_order`), so any first N are a fair sample and a
    larger limit contains a smaller one.
    """

    @property
    def name(self) -> str: ...

    @property
    def classes(self) -> int:
        """Size of the label space that `labels` index into."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes when ids, labels or images change."""
        ...

    @property
    def sample_ids(self) -> Sequence[str]: ...

    @property
    def labels(self) -> Sequence[int]: ...

    def of_ids(self, sample_ids: Collection[str]) -> "Dataset":
        """Those of the samples that are named, in the same order."""
        ...

    def read(self, positions: Sequence[int], recipes: Sequence[Recipe]) -> Batch:
        """Decode the samples at `positions`. An unreadable one becomes an error of the batch, not an exception."""
        ...
