"""`twicing-bench data`: is a data set on disk whole, and write a corrupted one."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from robustbench_twicing import api
from robustbench_twicing.catalog.suites import suite as load_suite
from robustbench_twicing.cli.once import App
from robustbench_twicing.cli.options import (
    COMPUTING,
    DIRECTORIES,
    FROST,
    IMAGES,
    MODELS,
    OUTPUT,
    SUITES,
    exit_if_failed,
    followed,
    stated,
    taking,
)
from robustbench_twicing.errors import EXIT_FAILED_RECORDS
from robustbench_twicing.report.compare import signed_points
from robustbench_twicing.report.console import percent

_PART = {name: SUITES[name] for name in ("corruptions", "severities")}
_HOW_MANY = {name: IMAGES[name] for name in ("limit", "seed")}

app = App(help="Check a data set before hours are spent on it, or write a corrupted copy of one.", no_args_is_help=True)


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
            table.add_row(row.part, *("" if count is None else f"{count:,}" for count in counts))
        console.print(table)
        for finding in report.findings:
            style = "red" if finding.severity == "error" else "yellow"
            console.print(Text(f"{finding.severity}: {finding.where}: {finding.message}", style=style))
        console.print("Nothing wrong." if report.ok and not report.findings else f"{len(report.findings)} finding(s).")
    if not report.ok:
        sys.exit(EXIT_FAILED_RECORDS)


@app.command("make-corrupted")
@taking({**DIRECTORIES, **_PART, **_HOW_MANY, "device": COMPUTING["device"], **FROST})
def make_corrupted(
    out: Annotated[
        str, typer.Option("--out", metavar="PATH", help="Folder to write CORRUPTION/SEVERITY/CLASS/FILE.JPEG into.")
    ],
    suite: Annotated[str, typer.Option("--suite", "-s", help="A generated suite.")] = "imagenet-c-generated",
    **said: Any,
) -> None:
    """Write a generated suite as JPEG files, in the layout of ImageNet-C. The same command again continues."""
    understood = stated({**said, "suites": [suite], "out": out}, without_models=True)

    from robustbench_twicing.runner.make_corrupted import make_corrupted as make

    written, failed = make(understood.plan, understood.means, os.cpu_count() or 1)
    print(f"{written} pictures written to {out}")
    for why in failed:
        print(f"failed: {why}", file=sys.stderr)
    if failed:
        sys.exit(EXIT_FAILED_RECORDS)


@app.command("check-generated")
@taking({**MODELS, **_PART, **_HOW_MANY, **DIRECTORIES, **COMPUTING, **FROST, **OUTPUT})
def check_generated(**said: Any) -> None:
    """How close is the generated ImageNet-C to the official files? Accuracy of the same models on both, paired.

    Needs --data-dir imagenet=DIR and --data-dir imagenet-c=DIR.
    """
    quiet, as_machine, skip_bad = (said.pop(name) for name in OUTPUT)
    understood = stated({**said, "suites": [api.OFFICIAL, api.GENERATED]})
    run = followed(quiet, lambda begin: api.check_generated(understood, begin))
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
