"""`twicing-bench run`."""

from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustbench_twicing import api
from robustbench_twicing.catalog.arms_to_train import ArmsToTrain
from robustbench_twicing.catalog.config import settings
from robustbench_twicing.catalog.plans import PlanFile, read_plan
from robustbench_twicing.catalog.plugins import code_allowed
from robustbench_twicing.cli.options import (
    COMPUTING,
    EVALUATING,
    FROST,
    LOG,
    OUTPUT,
    followed,
    means_of,
    print_evaluated,
    taking,
)
from robustbench_twicing.cli.printing import show_page
from robustbench_twicing.cli.progress import Followed, loading
from robustbench_twicing.cli.tracking import trackers
from robustbench_twicing.report.estimate import estimate_page
from robustbench_twicing.report.numbers import count, duration, size
from robustbench_twicing.report.page import Line, Page
from robustbench_twicing.report.text import say

if TYPE_CHECKING:
    from robustbench_twicing.runner.trained import Watching
    from robustbench_twicing.train.loop import Outcome


@taking({**COMPUTING, **EVALUATING, **FROST, **OUTPUT, **LOG})
def run(
    plan: Annotated[str, typer.Argument(help="A plan file (TOML), or the name of a plan that ships: nightly.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what is left to do: evaluations, time by a short probe, disk.")
    ] = False,
    **said: Any,
) -> None:
    """Carry out a plan. The same command again continues where it stopped, or shows the finished run.

    What another run under results/runs has finished with the same code, versions and device is taken over. An option
    wins over the plan's [means].
    """
    quiet, as_machine, skip_bad, allow_code = (said.pop(name) for name in OUTPUT)
    to_log = trackers(said.pop("log"))
    means = means_of(said)
    with code_allowed(allow_code):
        read = read_plan(plan, settings(), means)
        if dry_run:
            loading(quiet)
            if read.train is not None and read.train.missing:
                show_page(_what_is_to_be_trained(read, read.train), as_machine)
                return
            cost, folder, warnings = api.estimate_plan_file(plan, means)
            show_page(estimate_page(cost, str(folder), warnings), as_machine)
            return
        with ExitStack() as stack:
            watching = _watching(stack, quiet, read.train.data) if read.train is not None else None
            found = followed(quiet, lambda begin: api.run_plan_file(plan, means, begin, watching))
        print_evaluated(found, as_machine, skip_bad, to_log=to_log)


def _watching(stack: ExitStack, quiet: bool, data: str) -> "Watching":
    from robustbench_twicing.cli.train import say_outcome
    from robustbench_twicing.runner.trained import Watching

    bars: list[Followed] = []

    def going(one: Any, done: Any) -> None:
        if not bars:
            bars.append(stack.enter_context(Followed(quiet)))
        bars[0].update(one, done)

    def left(number: int, all_of_them: int) -> None:
        say(f"Trains {number} of {all_of_them} arms' seeds first.", stderr=True)

    def done(model: str, seed: int, images: int, outcome: "Outcome") -> None:
        say_outcome(data, model, seed, images, outcome, stderr=True)

    return Watching(left, going, done)


def _what_is_to_be_trained(read: PlanFile, arms: ArmsToTrain) -> Page:
    """One probe of each model; the evaluation cannot be probed before there are weights."""
    from robustbench_twicing.runner.trained import arms_estimated

    found = arms_estimated(arms, read.means)
    seconds = sum(seeds * one.seconds for seeds, one in found.values())
    lines = [
        Line(
            f"{model} by recipe {arms.recipe.name}: {seeds} seed(s) of {count(one.updates)} updates, "
            f"{one.images_per_second:,.1f} images/s, {duration(one.seconds)} each, "
            f"{size(one.disk_bytes)} of disk for a training"
        )
        for model, (seeds, one) in found.items()
    ]
    folder = next(iter(arms.weights.values())).parent
    return Page(
        "What is left to train",
        (
            *lines,
            Line(f"About {duration(seconds)} in all, one after another, from a probe of seconds. Weights: {folder}"),
            Line(f"Then {len(read.plan.cells)} cells are evaluated; --dry-run says what they cost once it is trained."),
        ),
        facts={
            "to_train": {model: seeds for model, (seeds, _) in found.items()},
            "seconds": seconds,
            "folder": str(folder),
            "cells": len(read.plan.cells),
        },
    )
