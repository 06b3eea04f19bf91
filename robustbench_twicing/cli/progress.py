"""Progress of a run, on standard error."""

import time
from collections.abc import Mapping
from types import TracebackType

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from robustbench_twicing.report.text import STYLES, console, visible
from robustbench_twicing.spec.plan import Cell


class CellProgress:
    """Follows the cells of a run: bars with the time left in a terminal, a plain line per finished cell elsewhere."""

    def __init__(self, to_do: Mapping[Cell, tuple[int, int]], quiet: bool) -> None:
        self._quiet = quiet
        self._console = console(stderr=True)
        self._began = time.monotonic()
        self._left = {cell: left for cell, (left, _) in to_do.items()}
        self._bars: Progress | None = None
        self._tasks: dict[Cell, TaskID] = {}
        self._total: TaskID | None = None
        if quiet or not any(self._left.values()):
            return
        if not self._console.is_terminal:
            return
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._total = self._bars.add_task("all", total=sum(self._left.values()))

    def __enter__(self) -> "CellProgress":  # noqa: PYI034 - beartype cannot check Self here
        if self._bars:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars:
            self._bars.stop()

    def advance(self, cell: Cell, evaluations: int) -> None:
        """Some evaluations of a cell are done."""
        if self._bars is None or self._total is None:
            return
        if cell not in self._tasks:
            self._tasks[cell] = self._bars.add_task(_name(cell), total=self._left[cell])
        self._bars.advance(self._tasks[cell], evaluations)
        self._bars.advance(self._total, evaluations)

    def say(self, remark: str) -> None:
        """Above the bars; also when progress is not wanted."""
        for line in remark.split("\n"):
            self._console.print(visible(line, self._console.encoding), style=STYLES["warning"], soft_wrap=True)

    def finish(self, cell: Cell) -> None:
        """A cell is whole."""
        if self._bars is not None and cell in self._tasks:
            self._bars.remove_task(self._tasks.pop(cell))
        if not self._quiet and self._bars is None:
            elapsed = time.monotonic() - self._began
            self._console.print(f"{_name(cell)}: done after {elapsed:.0f} s", soft_wrap=True)


def _name(cell: Cell) -> str:
    return visible(f"{cell.model.name} {cell.threat.id}")
