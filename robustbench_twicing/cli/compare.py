"""`twicing-bench compare`."""

import json
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from robustbench_twicing import api
from robustbench_twicing.cli.options import Begin, Quiet, followed, wide_console
from robustbench_twicing.report.compare import as_json, print_comparisons
from robustbench_twicing.report.plots import plot_curves


def compare(
    what: Annotated[
        list[str] | None,
        typer.Argument(help="Two runs, or one run or plan; with --run, names of its models, the baseline first."),
    ] = None,
    run: Annotated[str | None, typer.Option("--run", help="The run or plan whose models are compared.")] = None,
    alpha: Annotated[
        float, typer.Option(min=0.0001, max=0.5, help="Chance of a verdict without any true difference, at most.")
    ] = 0.05,
    flips: Annotated[bool, typer.Option("--flips", help="List the samples that changed sides.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Also write the robustness curves: FILE.png, .svg or .pdf (needs matplotlib).")
    ] = None,
    quiet: Quiet = False,
    as_machine: Annotated[bool, typer.Option("--json", help="Print everything as JSON instead of tables.")] = False,
) -> None:
    """Compare models on the same samples: better, worse, or no difference found, with what it would take to find one.

    A plan that is not carried out yet is carried out first.
    """
    names = what or []
    for plan in api.still_to_do(*names, run=run):
        followed(quiet, partial(_carried_out, str(plan)))
    found = api.compare(*names, run=run, alpha=alpha)
    if as_machine:
        print(json.dumps(as_json(found, flips), indent=2, ensure_ascii=False))
    else:
        print_comparisons(wide_console(), found, flips)
    if plot:
        plot_curves(found.curves, plot)


def _carried_out(plan: str, begin: Begin) -> api.Run:
    return api.run_plan_file(plan, begin=begin)
