"""`twicing-bench compare`."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from robustbench_twicing import api
from robustbench_twicing.cli.options import Begin, Quiet, followed
from robustbench_twicing.cli.printing import Json, show_page
from robustbench_twicing.report.compare import compare_page
from robustbench_twicing.report.plots import plot_curves
from robustbench_twicing.spec.means import Means


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
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Where a plan is carried out: take nothing over from other runs.")
    ] = False,
    quiet: Quiet = False,
    as_machine: Json = False,
) -> None:
    """Compare models on the same samples: better, worse, or no difference found, with what it would take to find one.

    A plan that is not carried out yet is carried out first.
    """
    names = what or []
    for plan in api.still_to_do(*names, run=run):
        followed(quiet, partial(_carried_out, str(plan), Means(fresh=fresh)))
    page = compare_page(api.compare(*names, run=run, alpha=alpha), flips)
    show_page(page, as_machine)
    if plot:
        plot_curves(page.curves, plot)


def _carried_out(plan: str, means: Means, begin: Begin) -> api.Run:
    return api.run_plan_file(plan, means, begin)
