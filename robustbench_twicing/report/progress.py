"""Progress of a run: on standard error, or below the cell of a notebook."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from robustbench_twicing.report.numbers import count, duration
from robustbench_twicing.report.text import STYLES, console, visible
from robustbench_twicing.spec.plan import Cell

_BETWEEN_LINES = 60.0
"""Seconds between two lines where there is no terminal."""


class CellProgress:
    """Follows a run: one bar over everything, with the cell at work, in a terminal, and in a notebook that has widgets.

    Elsewhere a plain line a minute.
    """

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
        if self._silent or not (self._console.is_terminal or _has_widgets(self._console)):
            return
        self._bar = Progress(
            BarColumn(bar_width=20),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.description}", markup=False),
            console=self._console,
            transient=self._console.is_terminal,
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
            if self._console.is_jupyter:
                self._bar.refresh()  # it stays, and is not drawn a last time by stopping
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


def _has_widgets(to: Console) -> bool:
    """Whether this is a notebook in which rich can draw a bar that moves."""
    if not to.is_jupyter:
        return False
    try:
        import ipywidgets  # noqa: F401
    except ImportError:
        return False
    return True


Begin = Callable[[dict[Cell, tuple[int, int]]], CellProgress]


@contextmanager
def following(quiet: bool = False) -> Iterator[Begin]:
    """Whoever is told what is to be done draws it, until the context ends."""
    with ExitStack() as stack:

        def begin(to_do: dict[Cell, tuple[int, int]]) -> CellProgress:
            return stack.enter_context(CellProgress(to_do, quiet))

        yield begin
