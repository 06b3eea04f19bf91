"""`twicing-bench data`: is a data set on disk whole, and write a corrupted one."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

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
    DataDirs,
    Device,
    Json,
    Limit,
    Models,
    Out,
    Quiet,
    Seed,
    device_or_default,
    followed,
)
from robustbench_twicing.errors import EXIT_FAILED_RECORDS
from robustbench_twicing.report.console import percent
from robustbench_twicing.summary import generated_differences

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

    Exit codes: 0 nothing wrong (warnings allowed), 1 errors found, 2 this is not the suite at all.
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
    out: Annotated[Path, typer.Option("--out", help="Folder to write CORRUPTION/SEVERITY/CLASS/FILE.JPEG into.")],
    suite: Annotated[str, typer.Option("--suite", "-s", help="A generated suite.")] = "imagenet-c-generated",
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="Where the clean images lie.")] = None,
    corruption: Annotated[
        list[str] | None, typer.Option("--corruption", "-c", help="Some corruptions; repeatable.")
    ] = None,
    severity: Annotated[list[int] | None, typer.Option("--severity", help="1 to 5; repeatable. Default all.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Images; default all.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of every random draw.")] = 0,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = "auto",
    frost_dir: Annotated[str | None, typer.Option(help="The original frost pictures, or `drawn`.")] = None,
) -> None:
    """Write a generated suite as JPEG files, in the layout of ImageNet-C. The same command again continues."""
    base = base_of([suite])
    places = settings().directories([f"{base}={data_dir}"] if data_dir else [], [base])

    from robustbench_twicing.runner.environment import choose_device
    from robustbench_twicing.runner.make_corrupted import generation_plan
    from robustbench_twicing.runner.make_corrupted import make_corrupted as make

    plan = generation_plan(suite, corruption or [], severity or [], limit, seed, base)
    written, failed = make(plan, places, out, os.cpu_count() or 1, choose_device(device), frost_dir)
    print(f"{written} pictures written to {out}")
    for why in failed:
        print(f"failed: {why}", file=sys.stderr)
    if failed:
        sys.exit(EXIT_FAILED_RECORDS)


@app.command("check-generated")
def check_generated(
    model: Models,
    data_dir: DataDirs = None,
    limit: Limit = None,
    batch_size: BatchSize = None,
    seed: Seed = 0,
    device: Device = None,
    out: Out = None,
    quiet: Quiet = False,
    as_machine: Json = False,
) -> None:
    """How close is the generated ImageNet-C to the official files? Accuracy of the same models on both, paired.

    Needs --data-dir imagenet=DIR and --data-dir imagenet-c=DIR.
    """
    official, generated = "imagenet-c", "imagenet-c-generated"
    places = settings().directories(data_dir or [], [official, "imagenet"])

    def carry_out(begin: Begin) -> api.Run:
        return api.evaluate(
            model,
            suites=[official, generated],
            directories=places,
            limit=limit,
            batch_size=batch_size,
            seed=seed,
            device=device_or_default(device),
            out=out,
            begin=begin,
        )

    run = followed(quiet, carry_out)
    rows = generated_differences(run.records, official, generated)
    if as_machine:
        print(rows.to_json(orient="records", indent=2))
        return
    table = Table(title="Generated minus official, accuracy in points", title_justify="left")
    for name in ("corruption", "severity", "model", "n", "official %", "generated %", "difference", "95 % interval"):
        table.add_column(name, justify="left" if name in ("corruption", "model") else "right")
    for _, row in rows.iterrows():
        interval = f"{100 * row['low']:+.1f} to {100 * row['high']:+.1f}"
        shown = percent(row["official"]), percent(row["generated"]), f"{100 * row['difference']:+.1f}", interval
        table.add_row(row["corruption"], str(row["severity"]), row["model"], str(row["n"]), *shown)
    Console().print(table)
    print(f"Run folder: {run.path}")
