"""`twicing-bench data`: is a data set on disk whole, and write a corrupted one."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from robustbench_twicing import api
from robustbench_twicing.catalog.places import require_place, require_places
from robustbench_twicing.catalog.plugins import code_allowed
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
from robustbench_twicing.cli.printing import Json, show_page
from robustbench_twicing.errors import EXIT_FAILED_RECORDS
from robustbench_twicing.report.data import check_page, differences_page

_PART = {name: SUITES[name] for name in ("corruptions", "severities")}
_FRESH = Annotated[
    bool | None, typer.Option("--fresh", help="Remove the pictures that are there, and write them anew.")
]
_HOW_MANY = {name: IMAGES[name] for name in ("limit", "seed")}

app = App(help="Check a data set before hours are spent on it, or write a corrupted copy of one.", no_args_is_help=True)


@app.command()
def check(
    suite: Annotated[str, typer.Argument(help="Suite name (see `catalog`) or a TOML file.")],
    directory: Annotated[Path, typer.Argument(help="Folder or archive that holds it.")],
    deep: Annotated[bool, typer.Option("--deep", help="Also decode every image.")] = False,
    as_machine: Json = False,
) -> None:
    """Count classes and images, and name what is stray, missing, unreadable or of the wrong size.

    Exit codes: 0 nothing wrong (warnings allowed), 1 errors found, 2 no class folder or part of the suite is there.
    """
    spec = load_suite(suite)
    require_place(directory, "the path")

    from robustbench_twicing.data.check import check_suite

    report = check_suite(spec, directory, deep=deep, workers=os.cpu_count() or 1)
    show_page(check_page(report), as_machine)
    if not report.ok:
        sys.exit(EXIT_FAILED_RECORDS)


@app.command("make-corrupted")
@taking({**DIRECTORIES, **_PART, **_HOW_MANY, "device": COMPUTING["device"], **FROST, "fresh": _FRESH})
def make_corrupted(
    out: Annotated[
        str, typer.Option("--out", metavar="PATH", help="Folder to write CORRUPTION/SEVERITY/CLASS/FILE.JPEG into.")
    ],
    suite: Annotated[str, typer.Option("--suite", "-s", help="A generated suite.")] = "imagenet-c-generated",
    **said: Any,
) -> None:
    """Write a generated suite as JPEG files, in the layout of ImageNet-C. The same command again continues.

    Pictures of another seed, quality, data set or frost are refused, not kept: --fresh writes them anew.
    """
    understood = stated({**said, "suites": [suite], "out": out}, without_models=True)
    require_places(understood.plan, understood.means)

    from robustbench_twicing.tasks.images.make_corrupted import make_corrupted as make

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
    quiet, as_machine, skip_bad, allow_code = (said.pop(name) for name in OUTPUT)
    with code_allowed(allow_code):
        understood = stated({**said, "suites": [api.OFFICIAL, api.GENERATED]})
    run = followed(quiet, lambda begin: api.check_generated(understood, begin))
    show_page(differences_page(api.generated_against_official(run), str(run.path)), as_machine)
    exit_if_failed(run, skip_bad)
