"""`--log`: to trackers of experiments, once everything else is done."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import typer

from robustbench_twicing.cli.panels import OUTPUT_PANEL
from robustbench_twicing.errors import UserError
from robustbench_twicing.report.page import Page
from robustbench_twicing.report.text import say
from robustbench_twicing.report.tracked_trainings import TrackedTrainings
from robustbench_twicing.report.trackers import Asked, asked, log
from robustbench_twicing.results.run import Run
from robustbench_twicing.spec.training import TrainingRecipe

Log = Annotated[
    list[str] | None,
    typer.Option(
        "--log",
        metavar="TRACKER[=WHERE]",
        rich_help_panel=OUTPUT_PANEL,
        help="Log the report to mlflow, wandb or tensorboard, too.",
    ),
]


def trackers(said: Sequence[str] | None) -> list[Asked]:
    """What `--log` names. Raises `UserError` now rather than after the work."""
    return [asked(text) for text in said or ()]


def log_page(to: Sequence[Asked], runs: Sequence[Run], page: Page) -> list[str]:
    """Log a page of runs, and say on stderr where. Returns what failed, which it says as well."""
    failed = []
    for name, said, done in log(to, page, runs):
        if done:
            say(f"Logged to {name}: {said}", stderr=True)
        else:
            failed.append(name)
            say(f"Not logged to {name}: {said}", "warning", stderr=True)
    return failed


def refuse_failed(failed: Sequence[str]) -> None:
    """Raise `UserError` if something was not logged, where logging was what was asked for."""
    if failed:
        raise UserError(
            f"The report was not logged to {', '.join(failed)}.", "Put right what is said above; the run is as it was."
        )


@contextmanager
def tracked(to: Sequence[Asked], data: str, recipe: TrainingRecipe) -> Iterator[TrackedTrainings]:
    """Who logs trainings within the context; says on stderr where."""

    def failed(name: str, said: str) -> None:
        say(f"No longer logged to {name}: {said}", "warning", stderr=True)

    trainings = TrackedTrainings(to, data, recipe, failed)
    try:
        yield trainings
    finally:
        trainings.interrupted()
        for name, where in trainings.logged:
            say(f"Logged to {name}: {where}", stderr=True)
