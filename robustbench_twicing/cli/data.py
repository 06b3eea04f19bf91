"""`twicing-bench data`: is a data set on disk whole, and write a corrupted one."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from robustbench_twicing import api
from robustbench_twicing.catalog.config import settings
from robustbench_twicing.catalog.suites import suite as load_suite
from robustbench_twicing.catalog.threats import base_of
from robustbench_twicing.cli.options import (
    BatchSize,
    Begin,
    Corruptions,
    DataDirs,
    Device,
    FrostDir,
    Json,
    Limit,
    Models,
    Out,
    Quiet,
    Seed,
    Severities,
    SkipBad,
    device_or_default,
    exit_if_failed,
    folder,
    followed,
)
from robustbench_twicing.errors import EXIT_FAILED_RECORDS
from robustbench_twicing.report.compare import signed_points
from robustbench_twicing.report.console import percent

app = typer.Typer(
    help="Check a data set before hours are spent on it, or write a corrupted copy of one.", no_args_is_help=True
)


@app.command()
def check(
    suite: Annotated[str, typer.Argument(help="Suite name (see `catalog`) or a TOML file.")],
    directory: Annotated[Path, typer.Argument(help="Folder or archive that holds it.")],
    deep: Annotated[bool, typer.Option("--deep", help="Also decode every image.")] = False,
    as_machine: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Count classes and images, and name what is stray, missing, unreadable or of the wrong size.

    Exit codes: 0 nothing wrong (warnings allowed), 1 errors found, 2 no class folder or part of the suite is there.
    """
    from robustbench_twicing.data.check import check_suite

    report = check_suite(load_suite(suite), directory, deep=deep, workers=os.cpu_count() or 1)
    if as_machine:
        rows = [vars(row) for row in report.rows]
        found = [vars(finding) for finding in report.findings]
        print(json.dumps({"ok": report.ok, "rows": rows, "findings": found}, indent=2, ensure_ascii=False, default=str))
    else:
        console = Console()
        table = Table(title=f"{suite} in {directory}", title_justify="left")
        for name in ("part", "classes", "expected", "images", "expected"):
            table.add_column(name, justify="left" if name == "part" else "right")
        for row in report.rows:
            counts = (row.classes, row.expected_classes, row.images, row.expected_images)
            table.add_row(row.part, *(f"{count:,}" for count in counts))
        console.print(table)
        for finding in report.findings:
            style = "red" if finding.severity == "error" else "yellow"
            console.print(Text(f"{finding.severity}: {finding.where}: {finding.message}", style=style))
        console.print("Nothing wrong." if report.ok and not report.findings else f"{len(report.findings)} finding(s).")
    if not report.ok:
        sys.exit(EXIT_FAILED_RECORDS)


@app.command("make-corrupted")
def make_corrupted(
    out: Annotated[
        Path,
        typer.Option(
            "--out", parser=folder, metavar="PATH", help="Folder to write CORRUPTION/SEVERITY/CLASS/FILE.JPEG into."
        ),
    ],
    suite: Annotated[str, typer.Option("--suite", "-s", help="A generated suite.")] = "imagenet-c-generated",
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="Where the clean images lie.")] = None,
    corruption: Corruptions = None,
    severity: Severities = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Images; default all.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of every random draw.")] = 0,
    device: Device = None,
    frost_dir: FrostDir = None,
) -> None:
    """Write a generated suite as JPEG files, in the layout of ImageNet-C. The same command again continues."""
    base = base_of([suite])
    known = settings()
    places = known.directories([f"{base}={data_dir}"] if data_dir else [], [base])
    frost_dir = frost_dir or known.default("frost-dir")

    from robustbench_twicing.machine.device import choose_device
    from robustbench_twicing.runner.make_corrupted import generation_plan
    from robustbench_twicing.runner.make_corrupted import make_corrupted as make

    plan = generation_plan(suite, corruption or [], severity or [], limit, seed, base)
    written, failed = make(plan, places, out, os.cpu_count() or 1, choose_device(device_or_default(device)), frost_dir)
    print(f"{written} pictures written to {out}")
    for why in failed:
        print(f"failed: {why}", file=sys.stderr)
    if failed:
        sys.exit(EXIT_FAILED_RECORDS)


@app.command("check-generated")
def check_generated(
    model: Models,
    data_dir: DataDirs = None,
    corruption: Corruptions = None,
    severity: Severities = None,
    limit: Limit = None,
    batch_size: BatchSize = None,
    seed: Seed = 0,
    device: Device = None,
    frost_dir: FrostDir = None,
    out: Out = None,
    quiet: Quiet = False,
    as_machine: Json = False,
    skip_bad: SkipBad = False,
) -> None:
    """How close is the generated ImageNet-C to the official files? Accuracy of the same models on both, paired.

    Needs --data-dir imagenet=DIR and --data-dir imagenet-c=DIR.
    """
    known = settings()
    places = known.directories(data_dir or [], ["imagenet-c", "imagenet"])

    def carry_out(begin: Begin) -> api.Run:
        return api.check_generated(
            model,
            corruptions=corruption or (),
            severities=severity or (),
            directories=places,
            checkpoints=known.checkpoints("imagenet"),
            limit=limit,
            batch_size=batch_size,
            seed=seed,
            device=device_or_default(device),
            frost_dir=frost_dir or known.default("frost-dir"),
            out=out,
            begin=begin,
        )

    run = followed(quiet, carry_out)
    rows = api.generated_against_official(run)
    if as_machine:
        print(rows.to_json(orient="records", indent=2))
    else:
        _print_differences(rows)
        print(f"Run folder: {run.path}")
    exit_if_failed(run, skip_bad)


def _print_differences(rows: pd.DataFrame) -> None:
    """Fits into 80 columns."""
    table = Table(title="ImageNet-C: top-1 accuracy in %, difference in points", title_justify="left")
    table.add_column("corruption")
    table.add_column("model", overflow="fold")
    for name in ("n", "official → generated", "diff.", "95 % interval"):
        table.add_column(name, justify="right", no_wrap=not name.startswith("official"))
    for _, row in rows.iterrows():
        table.add_row(
            f"{row['corruption']} {row['severity']}",
            row["model"],
            f"{row['n']:,}",
            f"{percent(row['official'])} → {percent(row['generated'])}",
            signed_points(row["difference"]),
            f"{signed_points(row['low'])} to {signed_points(row['high'])}",
        )
    Console().print(table)
