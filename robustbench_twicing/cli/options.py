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
from robustbench_twicing.catalog.config import settings
from robustbench_twicing.errors import EXIT_FAILED_RECORDS
from robustbench_twicing.report.console import CellProgress, print_run
from robustbench_twicing.results.summary import as_json
from robustbench_twicing.spec.plan import Cell

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
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda or cuda:N. Default auto.")]
Weights = Annotated[str, typer.Option("--weights", help="Of a training checkpoint: raw, ema or both.")]
ResamplePosEmbed = Annotated[
    bool, typer.Option("--resample-pos-embed", help="Resample position embeddings of another size.")
]
Preflight = Annotated[
    bool,
    typer.Option(
        "--preflight/--no-preflight", help="Look for what makes attacked accuracy meaningless before attacking."
    ),
]
Corruptions = Annotated[
    list[str] | None,
    typer.Option("--corruption", "-c", help="A corruption, or common, extra or all; repeatable. Default all."),
]
Severities = Annotated[list[int] | None, typer.Option("--severity", help="1 to 5; repeatable. Default all.")]
FrostDir = Annotated[
    str | None, typer.Option("--frost-dir", help="The original frost pictures for generated frost, or `drawn`.")
]


def folder(text: str) -> Path:
    """The folder of that name. An empty one, such as `--out "$OUT"` with OUT not set, is not the working folder."""
    if not text:
        raise typer.BadParameter("the name is empty.")
    return Path(text)


Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        parser=folder,
        metavar="PATH",
        help="Run folder. Default: one under results/runs/ named after the settings.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Json = Annotated[bool, typer.Option("--json", help="Print the summary as JSON instead of tables.")]
Begin = Callable[[dict[Cell, tuple[int, int]]], CellProgress]

SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Exit 0 although some samples failed.")]


def device_or_default(device: str | None) -> str:
    """The device that a flag names, else the configured one."""
    return device or settings().default("device") or "auto"


def evaluate_and_print(
    quiet: bool,
    as_machine: bool,
    skip_bad: bool,
    data_dirs: list[str] | None,
    names: list[str],
    device: str | None,
    **chosen: Any,
) -> None:
    """Evaluate, follow the progress, print; exit 1 if samples failed.

    `names` are the data sets at hand. What the flags leave open comes from `catalog.config.settings`.
    """
    known = settings()
    chosen |= {
        "directories": known.directories(data_dirs or [], names),
        "checkpoints": known.checkpoints(names[0]),
        "device": device_or_default(device),
    }
    run = followed(quiet, lambda begin: api.evaluate(**chosen, begin=begin))
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
    exit_if_failed(run, skip_bad)


def exit_if_failed(run: api.Run, skip_bad: bool) -> None:
    """Name the samples of a run that failed, if there are any, and exit 1 unless that is no matter."""
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
