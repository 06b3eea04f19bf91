"""What every task has in common: what the runner asks of it, and who follows the work.

A task says what a sample is, which columns its records have, and how an answer is judged. The runner knows cells and
shards of records; what is in a sample, and what a model makes of it, only the task knows.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import pandas as pd
import torch

from robustbench_twicing.results.manifest import Shard
from robustbench_twicing.results.used import DataUsed, MeansUsed, ModelFinding, ModelUsed
from robustbench_twicing.spec.means import Means
from robustbench_twicing.spec.plan import Cell, Plan
from robustbench_twicing.spec.records import Column
from robustbench_twicing.spec.suite import SuiteDefinition
from robustbench_twicing.spec.threats import Threat

BLOCK = 256
"""Samples that are read together, whatever the task; a shard lies within one block."""


@runtime_checkable  # the test run checks types at run time
class Progress(Protocol):
    """Who wants to know how far the work is."""

    def advance(self, cell: Cell, evaluations: int) -> None:
        """Some of the cell's evaluations are done (of `evaluations_of` in all)."""

    def finish(self, cell: Cell) -> None:
        """The cell's last shard is on the disk."""

    def say(self, remark: str) -> None:
        """Something a user should know before the work goes on."""


class Samples(NamedTuple):
    """The samples of a threat, all that there are, in the data set's order."""

    ids: Sequence[str]
    labels: Sequence[int]


class Disagreement(NamedTuple):
    """A value of a record that comes out otherwise when its sample is done again."""

    column: str
    recorded: str
    computed: str
    near_a_tie: bool
    """Rounding alone can make the difference."""


Looks = dict[str, list[ModelFinding]]
"""For each model that somebody looked at what was found."""


@runtime_checkable
class Opened(Protocol):
    """A plan with its models loaded and its data open: all that is left is to compute."""

    def samples(self, threat: Threat) -> Samples:
        """What the threat can be run on."""
        ...

    def shard_size(self, threat: Threat) -> int:
        """Samples of one file of records; depends on the threat alone, never on batch size or device."""
        ...

    def common(self, cell: Cell) -> dict[str, Any]:
        """The columns that are the same in every record of a cell, and what else decides its numbers."""
        ...

    def data_used(self, threat: Threat) -> DataUsed:
        """What the manifest says of the data behind a threat."""
        ...

    def models_used(self) -> Mapping[str, ModelUsed]:
        """What the manifest says of the models, by name."""
        ...

    def suites_used(self) -> Mapping[str, SuiteDefinition]:
        """Every suite that something is read or scored by."""
        ...

    def tune(self, means: Means, known: MeansUsed) -> MeansUsed:
        """Settle how models are evaluated: as the user says, else as it is `known`, else as a warm-up finds it fast."""
        ...

    def preflight(self, pending: Mapping[Cell, Sequence[Shard]]) -> Looks:
        """Look at the models that have something to do. Raises `UserError` if some number would mean nothing."""
        ...

    def records(
        self, pending: Mapping[Cell, Sequence[Shard]], progress: Progress, whole: bool = False
    ) -> Iterator[tuple[Cell, Shard, pd.DataFrame]]:
        """Do these shards, each handed out with its records as soon as they are there, without the `common` columns.

        Their order is the task's: so that a sample is read once, whoever needs it. `whole`: what samples that are read
        together share is computed for all of them, so that no last bit hangs on which other shards are pending.
        """
        ...

    def checked(
        self, recorded: Mapping[Cell, pd.DataFrame], progress: Progress
    ) -> Iterator[tuple[Cell, int, tuple[Disagreement, ...]]]:
        """Do samples again, and compare them with their records, whose index is the samples' place in the data set.

        Each sample is handed out once, with all that comes out otherwise.
        """
        ...

    def kept(self, recorded: Mapping[Cell, pd.DataFrame]) -> Iterator[tuple[Cell, int, Iterator[tuple[str, bytes]]]]:
        """Make samples again and hand out files of them, in the order of the records, whose index is as in `checked`.

        For each cell also how many came out otherwise than recorded, and are in no file.
        """
        ...


class _Nobody:
    def advance(self, cell: Cell, evaluations: int) -> None:
        pass

    def finish(self, cell: Cell) -> None:
        pass

    def say(self, remark: str) -> None:
        pass


NOBODY: Progress = _Nobody()
"""Follows nothing."""


class Task(NamedTuple):
    """One kind of sample."""

    name: str
    columns: Sequence[Column]
    """Of its records."""
    settled: Callable[[Plan, Means], Plan]
    """The plan with what only this machine can tell in it, such as which pictures of frost there are."""
    open: Callable[[Plan, Means, torch.device, Mapping[str, Any]], Opened]
    """Load the models, but for those that are in memory already, and open the data. Raises `UserError`."""


def evaluations_of(cell: Cell, samples: int) -> int:
    """Evaluations of the model that a cell costs at most; for progress and estimates."""
    threat = cell.threat
    return samples * (threat.evaluations if threat.kind == "attack" else 1)
