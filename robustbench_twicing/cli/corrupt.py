"""`twicing-bench corrupt`."""

from typing import Annotated

import typer

from robustbench_twicing.catalog.config import settings
from robustbench_twicing.catalog.suites import suite as load_suite
from robustbench_twicing.catalog.threats import base_of
from robustbench_twicing.cli.options import (
    BatchSize,
    Corruptions,
    DataDirs,
    Device,
    FrostDir,
    Json,
    Limit,
    Models,
    Out,
    Quiet,
    RecipeName,
    ResamplePosEmbed,
    Seed,
    Severities,
    SkipBad,
    Weights,
    evaluate_and_print,
)


def corrupt(
    model: Models,
    suite: Annotated[
        list[str] | None,
        typer.Option("--suite", "-s", help="Suite name (see `catalog`); repeatable. Default digits-c."),
    ] = None,
    corruption: Corruptions = None,
    severity: Severities = None,
    data_dir: DataDirs = None,
    recipe: RecipeName = None,
    limit: Limit = None,
    batch_size: BatchSize = None,
    seed: Seed = 0,
    device: Device = None,
    weights: Weights = "raw",
    resample_pos_embed: ResamplePosEmbed = False,
    frost_dir: FrostDir = None,
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
        data_dir,
        # The clean images that a generated suite is made from may be the one data set on disk.
        [base_of(suites)] if all(load_suite(name).layout == "generated" for name in suites) else suites,
        device,
        models=model,
        suites=suites,
        corruptions=corruption or (),
        severities=severity or (),
        recipe=recipe,
        limit=limit,
        seed=seed,
        weights=weights,
        resample_pos_embed=resample_pos_embed,
        batch_size=batch_size,
        frost_dir=frost_dir or settings().default("frost-dir"),
        out=out,
    )
