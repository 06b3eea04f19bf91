"""What is said while a command works, on standard error."""

import os
import sys
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from robustbench_twicing.report.text import console, say


def loading(quiet: bool) -> None:
    """The first line, at once: torch, the models and the data take seconds to load, and a slow disk a minute.

    Of the processes that torchrun starts the first says it.
    """
    if not quiet and os.environ.get("RANK", "0") == "0":
        say("Loading …", "note", stderr=True)


class Followed:
    """The bar of trainings in turn; without a terminal a line now and then."""

    def __init__(self, quiet: bool) -> None:
        self._bar, self._quiet, self._tenth = bar(quiet), quiet, -1
        self._task, self._name = self._bar.add_task(""), ""

    def __enter__(self) -> "Followed":  # noqa: PYI034 - beartype cannot check Self here
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def update(self, one: Any, done: Any) -> None:
        """Another update of a training is done."""
        name = f"{one.job.spec.name}, seed {one.job.seed}"
        said = (
            f"{name}: epoch {done.epoch} of {done.epochs}, loss {done.loss:.3f}, {done.images_per_second:,.0f} images/s"
        )
        self._bar.update(self._task, completed=done.update, total=done.updates, description=said)
        tenth = 10 * done.update // max(done.updates, 1)
        if not self._quiet and not self._bar.console.is_terminal and (name, tenth) != (self._name, self._tenth):
            print(said, file=sys.stderr, flush=True)
        self._name, self._tenth = name, tenth


def bar(quiet: bool) -> Progress:
    """Of trainings, in a terminal."""
    stderr = console(stderr=True)
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=stderr,
        transient=True,
        disable=quiet or not stderr.is_terminal,
    )
