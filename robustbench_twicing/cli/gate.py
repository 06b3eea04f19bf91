"""`twicing-bench gate`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from robustbench_twicing import api
from robustbench_twicing.catalog.plugins import code_allowed
from robustbench_twicing.catalog.read_toml import validated
from robustbench_twicing.cli.options import named_arms
from robustbench_twicing.cli.printing import AllowCode, Json, show_page
from robustbench_twicing.errors import UserError
from robustbench_twicing.report.formats import save
from robustbench_twicing.report.gate import Sides, gate_page
from robustbench_twicing.results.baselines import load_baseline
from robustbench_twicing.results.gate import check_run
from robustbench_twicing.spec.policy import Policy


def gate(
    run: Annotated[str, typer.Argument(help="The run to judge: its folder, its plan, or latest.")],
    baseline: Annotated[
        Path, typer.Option("--baseline", help="The baseline: the name that `baseline accept` gave it, or its folder.")
    ],
    alpha: Annotated[
        float | None, typer.Option(help="Chance, at most, of a false alarm, and of a false pass. 0.1 at most.")
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(help="Drop in accuracy that is let through: 0.01 is one percentage point.")
    ] = None,
    floor: Annotated[
        list[str] | None, typer.Option("--floor", help="MODEL:THREAT=ACCURACY that must be reached; * and ? allowed.")
    ] = None,
    arm: Annotated[
        list[str] | None,
        typer.Option(
            "--arm", help="NAME=PATTERN: models that are the training seeds of one method, judged as one; repeatable."
        ),
    ] = None,
    each_model: Annotated[
        bool, typer.Option("--each-model", help="Judge every model by itself, whatever arms the plan states.")
    ] = False,
    fail_on: Annotated[
        str | None,
        typer.Option("--fail-on", help="`inconclusive`: that exits 3 too. Default regressed: inconclusive exits 4."),
    ] = None,
    junit_file: Annotated[Path | None, typer.Option("--junit", help="Also write JUnit XML to this file.")] = None,
    markdown_file: Annotated[
        Path | None, typer.Option("--markdown", help="Also write a Markdown summary, such as $GITHUB_STEP_SUMMARY.")
    ] = None,
    allow_code: AllowCode = False,
    as_machine: Json = False,
) -> None:
    """Judge a run against a baseline: exit 0 pass, 3 regressed, 4 inconclusive.

    What it lets through comes from the run's plan ([gate]); the options here replace or add to it. A plan that is
    inconclusive on several nights in a row (`inconclusive_nights`, 5) exits 3. Of a job that retrains, judge arms of
    training seeds, the plan's [arms] or --arm: one model by itself changes with its seed.
    """
    with code_allowed(allow_code):
        found, accepted = api.load_finished(run), load_baseline(baseline)
    given = {"alpha": alpha, "tolerance": tolerance, "fail_on": fail_on}
    own = found.manifest.gate
    settings = {**own.model_dump(), **{key: value for key, value in given.items() if value is not None}}
    settings["floors"] = {**own.floors, **dict(map(_floor, floor or []))}
    if arm and each_model:
        raise UserError("--arm and --each-model contradict each other.", "Give one of them.")
    arms = {} if each_model else named_arms(arm or []) or None
    result = check_run(found, accepted, validated(Policy, settings, "The gate's policy"), arms)
    page = gate_page(result, Sides(str(found.path), str(baseline), accepted.manifest.accepted))
    for file, format_ in ((junit_file, "junit"), (markdown_file, "markdown")):
        if file:
            save(page, file, format_)
    show_page(page, as_machine)
    sys.exit(result.exit_code)


def _floor(text: str) -> tuple[str, float]:
    cell, _, accuracy = text.rpartition("=")
    try:
        value = float(accuracy)
    except ValueError:
        value = -1.0
    if not cell or not 0 <= value <= 1:
        raise UserError(
            f"--floor {text} is no floor.", "Write MODEL:THREAT=ACCURACY, such as --floor 'deit:clean=0.95'."
        )
    return cell, value
