"""Who follows the work, and how much of it there is: what every task has in common."""

from typing import Protocol, runtime_checkable

from robustbench_twicing.spec.plan import Cell


@runtime_checkable  # the test run checks types at run time
class Progress(Protocol):
    """Who wants to know how far the work is."""

    def advance(self, cell: Cell, evaluations: int) -> None:
        """Some of the cell's evaluations are done (of `evaluations_of` in all)."""

    def finish(self, cell: Cell) -> None:
        """The cell's last shard is on the disk."""

    def say(self, remark: str) -> None:
        """Something a user should know before the work goes on."""


def evaluations_of(cell: Cell, samples: int) -> int:
    """Evaluations of the model that a cell costs at most; for progress and estimates."""
    threat = cell.threat
    return samples * (threat.settings.evaluations if threat.kind == "attack" else 1)
