"""`twicing-bench corrupt`."""

from typing import Annotated

import typer

from robustbench_twicing.cli.options import (
    BatchSize,
    DataDirs,
    Device,
    Json,
    Limit,
    Models,
    Out,
    Quiet,
    RecipeName,
    Seed,
    SkipBad,
    directories,
    evaluate_and_print,
)


def corrupt(
    model: Models,
    suite: Annotated[
        list[str] | None,
        typer.Option("--suite", "-s", help="Suite name (see `catalog`); repeatable. Default digits-c."),
    ] = None,
    corruption: Annotated[
        list[str] | None,
        typer.Option("--corruption", "-c", help="A corruption, or common, extra or all; repeatable. Default all."),
    ] = None,
    severity: Annotated[list[int] | None, typer.Option("--severity", help="1 to 5; repeatable. Default all.")] = None,
    data_dir: DataDirs = None,
    recipe: RecipeName = None,
    limit: Limit = None,
    batch_size: BatchSize = None,
    seed: Seed = 0,
    device: Device = "auto",
    frost_dir: Annotated[
        str | None, typer.Option(help="The original frost pictures for generated frost, or `drawn`.")
    ] = None,
    out: Out = None,
    quiet: Quiet = False,
    as_machine: Json = False,
    skip_bad: SkipBad = False,
) -> None:
    """Run models on corrupted or shifted data sets and print their accuracy, errors and mCE.

    The same command again continues an interrupted run, or shows a finished one.
    """
    suites = list(dict.fromkeys(suite or ["digits-c"]))
    evaluate_and_print(
        quiet,
        as_machine,
        skip_bad,
        models=model,
        suites=suites,
        corruptions=corruption or (),
        severities=severity or (),
        directories=directories(data_dir, suites),
        recipe=recipe,
        limit=limit,
        seed=seed,
        device=device,
        batch_size=batch_size,
        frost_dir=frost_dir,
        out=out,
    )
