"""`twicing-bench compare`."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from robustbench_twicing import api
from robustbench_twicing.cli.options import Begin, Quiet, followed
from robustbench_twicing.cli.printing import Json, show_page
from robustbench_twicing.errors import UserError, unknown_name
from robustbench_twicing.metrics.arms import Images
from robustbench_twicing.report.arms import arms_page
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
    arm: Annotated[
        list[str] | None,
        typer.Option(
            "--arm", help="NAME=PATTERN: the models of one mechanism, a training seed each; repeatable, baseline first."
        ),
    ] = None,
    images: Annotated[
        str, typer.Option(help="With --arm: random, for images like these, or fixed, for these images only.")
    ] = "random",
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
    if arm:
        _compare_arms([*names, *([run] if run else [])], arm, images, alpha, as_machine)
        return
    for plan in api.still_to_do(*names, run=run):
        followed(quiet, partial(_carried_out, str(plan), Means(fresh=fresh)))
    page = compare_page(api.compare(*names, run=run, alpha=alpha), flips)
    show_page(page, as_machine)
    if plot:
        plot_curves(page.curves, plot)


def _compare_arms(runs: Sequence[str], texts: Sequence[str], images: str, alpha: float, as_machine: bool) -> None:
    if len(runs) != 1:
        raise UserError(f"Arms are compared within one run; {len(runs)} were named.", "Write: compare RUN --arm …")
    if images not in get_args(Images):
        raise unknown_name("choice of images", images, get_args(Images))
    arms: dict[str, list[str]] = {}
    for text in texts:
        name, sign, pattern = text.partition("=")
        if not (name and sign and pattern):
            raise UserError(f"--arm {text} names no arm.", "Write NAME=PATTERN, such as --arm 'deit-tw=deit-tw@*'.")
        arms.setdefault(name, []).append(pattern)
    found = api.compare_arms(runs[0], arms, images=cast(Images, images), alpha=alpha)
    show_page(arms_page(found), as_machine)


def _carried_out(plan: str, means: Means, begin: Begin) -> api.Run:
    return api.run_plan_file(plan, means, begin)
