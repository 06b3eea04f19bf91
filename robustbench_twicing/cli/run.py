"""`twicing-bench run`."""

import json
from typing import Annotated

import typer
from rich.console import Console

from robustbench_twicing import api
from robustbench_twicing.cli.options import (
    BatchSize,
    Device,
    Json,
    Out,
    Preflight,
    Quiet,
    SkipBad,
    device_or_default,
    followed,
    print_evaluated,
)
from robustbench_twicing.report.estimate import as_json, print_cost


def run(
    plan: Annotated[str, typer.Argument(help="A plan file (TOML), or the name of a plan that ships: nightly.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what is left to do: evaluations, time by a short probe, disk.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Take nothing over from other runs under results/runs.")
    ] = False,
    out: Out = None,
    device: Device = None,
    batch_size: BatchSize = None,
    preflight: Preflight = True,
    quiet: Quiet = False,
    as_machine: Json = False,
    skip_bad: SkipBad = False,
) -> None:
    """Carry out a plan. The same command again continues where it stopped, or shows the finished run.

    What another run under results/runs has finished with the same code, versions and device is taken over.
    """
    if dry_run:
        cost, folder = api.estimate_plan_file(
            plan,
            device=device_or_default(device),
            batch_size=batch_size,
            out=out,
            reuse=not fresh,
        )
        if as_machine:
            print(json.dumps(as_json(cost, str(folder)), indent=2))
        else:
            print_cost(Console(), cost, str(folder))
        return

    found = followed(
        quiet,
        lambda begin: api.run_plan_file(
            plan,
            device=device_or_default(device),
            batch_size=batch_size,
            out=out,
            reuse=not fresh,
            preflight=preflight,
            begin=begin,
        ),
    )
    print_evaluated(found, as_machine, skip_bad)
