"""Progress of a run, on standard error."""

import os
import time
from collections.abc import Callable, Mapping
from types import TracebackType

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from robustbench_twicing.report.numbers import count, duration
from robustbench_twicing.report.text import STYLES, console, say, visible
from robustbench_twicing.spec.plan import Cell

_BETWEEN_LINES = 60.0
"""Seconds between two lines where there is no terminal."""


def loading(quiet: bool) -> None:
    """The first line, at once: torch, the models and the data take seconds to load, and a slow disk a minute.

    Of the processes that torchrun starts the first says it.
    """
    if not quiet and os.environ.get("RANK", "0") == "0":
        say("Loading …", "note", stderr=True)


class CellProgress:
    """Follows a run: in a terminal one bar over everything, with the cell at work; elsewhere a plain line a minute."""

    def __init__(
        self, to_do: Mapping[Cell, tuple[int, int]], quiet: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console(stderr=True)
        self._clock = clock
        self._began = self._said = clock()
        pending = {cell: left for cell, (left, _) in to_do.items() if left}
        self._done, self._all = 0, sum(pending.values())
        self._cells, self._finished = len(pending), 0
        self._silent = quiet or not pending
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        if self._silent or not self._console.is_terminal:
            return
        self._bar = Progress(
            BarColumn(bar_width=20),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.description}", markup=False),
            console=self._console,
            transient=True,
        )
        self._task = self._bar.add_task("", total=self._all)

    def __enter__(self) -> "CellProgress":  # noqa: PYI034 - beartype cannot check Self here
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()
        elif kind is None and not self._silent:
            self._line(f"{count(self._finished)} cell(s) done after {duration(self._clock() - self._began)}")

    def advance(self, cell: Cell, evaluations: int) -> None:
        """Some evaluations of a cell are done."""
        self._done += evaluations
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=evaluations, description=self._at(cell))
        elif not self._silent and self._clock() - self._said >= _BETWEEN_LINES:
            self._said = self._clock()
            elapsed = self._said - self._began
            left = elapsed * max(self._all - self._done, 0) / max(self._done, 1)
            share = 100 * self._done / self._all
            self._line(f"{share:.0f} % after {duration(elapsed)}, about {duration(left)} left: {self._at(cell)}")

    def say(self, remark: str) -> None:
        """Above the bar; also when progress is not wanted."""
        for line in remark.split("\n"):
            self._console.print(visible(line, self._console.encoding), style=STYLES["warning"], soft_wrap=True)

    def finish(self, cell: Cell) -> None:
        """A cell is whole."""
        self._finished += 1

    def _at(self, cell: Cell) -> str:
        number = min(self._finished + 1, self._cells)
        return visible(f"{cell.model.name} {cell.threat.id} ({count(number)} of {count(self._cells)})")

    def _line(self, text: str) -> None:
        self._console.print(visible(text, self._console.encoding), soft_wrap=True)
