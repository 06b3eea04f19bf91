"""What the commands that evaluate models have in common: options, carrying out, printing."""

import json
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from robustbench_twicing import api
from robustbench_twicing.errors import EXIT_FAILED_RECORDS, UserError
from robustbench_twicing.plan import Cell
from robustbench_twicing.report.console import CellProgress, print_run
from robustbench_twicing.summary import as_json

Models = Annotated[list[str], typer.Option("--model", "-m", help="NAME or NAME=CHECKPOINT; repeat to compare models.")]
DataDirs = Annotated[
    list[str] | None,
    typer.Option("--data-dir", help="Where the data lies: DIR, or NAME=DIR for one of several; repeatable."),
]
RecipeName = Annotated[
    str | None,
    typer.Option("--recipe", help="How images on disk are prepared: model, paper or none. Default: the suite's own."),
]
Limit = Annotated[
    int | None,
    typer.Option(
        "--limit", min=1, help="Samples per threat. Default: all, or what the protocol suggests for a dear attack."
    ),
]
BatchSize = Annotated[
    int | None, typer.Option("--batch-size", min=1, help="Images per evaluation; changes speed, not draws.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of every random draw.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
Out = Annotated[
    Path | None, typer.Option("--out", help="Run folder. Default: one under results/runs/ named after the settings.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Json = Annotated[bool, typer.Option("--json", help="Print the summary as JSON instead of tables.")]
Begin = Callable[[dict[Cell, tuple[int, int]]], CellProgress]

SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Exit 0 although some samples failed.")]


def directories(given: list[str] | None, names: list[str]) -> dict[str, str]:
    """`--data-dir` as a table from name to folder. A bare DIR belongs to the one suite or data set at hand."""
    table = {}
    for text in given or []:
        name, sign, place = text.partition("=")
        if not sign and len(names) != 1:
            raise UserError(
                f"--data-dir {text} could belong to any of {', '.join(names)}.", f"Write --data-dir {names[0]}={text}"
            )
        table[name if sign else names[0]] = place if sign else text
    return table


def evaluate_and_print(quiet: bool, as_machine: bool, skip_bad: bool, **settings: Any) -> None:
    """Evaluate, follow the progress, print; exit 1 if samples failed."""
    run = followed(quiet, lambda begin: api.evaluate(**settings, begin=begin))
    print_evaluated(run, as_machine, skip_bad)


def followed(quiet: bool, carry_out: Callable[[Begin], api.Run]) -> api.Run:
    """The run that `carry_out` returns when it is given who follows the progress. Remarks go to stderr."""
    with ExitStack() as stack:

        def begin(to_do: dict[Cell, tuple[int, int]]) -> CellProgress:
            return stack.enter_context(CellProgress(Console(stderr=True), to_do, quiet))

        run = carry_out(begin)
    for remark in run.remarks:
        print(remark, file=sys.stderr)
    return run


def print_evaluated(run: api.Run, as_machine: bool, skip_bad: bool) -> None:
    """Print a run; exit 1 if samples failed."""
    if as_machine:
        print(json.dumps(as_json(run.summary, run.suites, run.manifest, str(run.path)), indent=2, ensure_ascii=False))
    else:
        print_run(Console(), run.manifest, run.summary, run.suites, str(run.path))
    if run.summary["failed"].any():
        failed = run.records[run.records["status"] == "failed"]
        for _, row in failed.drop_duplicates(["sample_id", "error"]).head(20).iterrows():
            print(f"failed: {row['sample_id']}: {row['error']}", file=sys.stderr)
        if not skip_bad:
            sys.exit(EXIT_FAILED_RECORDS)


def wide_console() -> Console:
    """Of the terminal's width; 150 columns where there is no terminal, so that no table is cut in a log."""
    console = Console()
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(width=150)
