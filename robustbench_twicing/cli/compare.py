"""`twicing-bench compare`."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from robustbench_twicing import api
from robustbench_twicing.catalog.plugins import code_allowed
from robustbench_twicing.cli.options import Quiet, followed, named_arms
from robustbench_twicing.cli.printing import AllowCode, Json, show_page
from robustbench_twicing.errors import UserError, unknown_name
from robustbench_twicing.metrics.arms import Images
from robustbench_twicing.report.arms import arms_page
from robustbench_twicing.report.compare import compare_page
from robustbench_twicing.report.language import comparison_page
from robustbench_twicing.report.measured import measured_page
from robustbench_twicing.report.plots import plot_curves, require_plots
from robustbench_twicing.report.progress import Begin
from robustbench_twicing.results.measured_comparison import named_measurements
from robustbench_twicing.results.text_comparison import named_texts
from robustbench_twicing.spec.means import Means

What = Annotated[
    list[str] | None,
    typer.Argument(
        help="Two runs, or folders of collapse, diagnose or sweep; or one run, plan or latest; with --run, its models, "
        "the baseline first."
    ),
]
ImagesOption = Annotated[
    str | None, typer.Option(help="Of arms: random, for images like these (default), or fixed, for these only.")
]
PlanPower = Annotated[
    float | None,
    typer.Option(
        min=0.0001, max=1, help="Of arms: also how many seeds and images show this difference (0.02: 2 points)."
    ),
]
SlicesOption = Annotated[
    bool, typer.Option("--slices", help="Say for which classes, severities and margins the models differ.")
]
Margin = Annotated[
    float | None,
    typer.Option(
        min=0.0001, max=1, help="Chosen beforehand: also say whether this difference is ruled out (0.01: a point)."
    ),
]
UntilDecided = Annotated[
    bool, typer.Option("--until-decided", help="For looking again with more images: verdicts hold over all looks.")
]
MaxT = Annotated[
    bool, typer.Option("--max-t", help="Correct for many threats by exchanging answers, not by Holm: decides more.")
]


def compare(
    what: What = None,
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
    images: ImagesOption = None,
    plan_power: PlanPower = None,
    margin: Margin = None,
    until_decided: UntilDecided = False,
    max_t: MaxT = False,
    flips: Annotated[bool, typer.Option("--flips", help="List the samples that changed sides.")] = False,
    slices: SlicesOption = False,
    plot: Annotated[
        Path | None, typer.Option(help="Also write the robustness curves: FILE.png, .svg or .pdf (needs matplotlib).")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Where a plan is carried out: take nothing over from other runs.")
    ] = False,
    quiet: Quiet = False,
    allow_code: AllowCode = False,
    as_machine: Json = False,
) -> None:
    """Compare models on the same samples: better, worse, or no difference found, with what it would take to find one.

    With --arm, or for a plan with [arms], mechanisms are compared, by arms of training seeds. A plan that is not
    carried out yet is carried out first.
    """
    with code_allowed(allow_code):
        names = what or []
        places = [*names, *([run] if run else [])]
        _end_with_measurements(names, run, arm or [], as_machine)
        arms = _arms(arm or [], places)
        _end_with_texts(names, run, arms, alpha, as_machine)
        _refuse_unused(
            arms is not None,
            {"--flips": flips, "--plot": plot, "--until-decided": until_decided, "--max-t": max_t},
            {"--images": images, "--plan-power": plan_power},
        )
        _refuse_wrong(arms is not None, places, images, plot)
        for plan in api.still_to_do(*names, run=run, arms=arms):
            followed(quiet, partial(_carried_out, str(plan), Means(fresh=fresh)))
            _end_with_texts(names, run, arms, alpha, as_machine)
        if arms is not None:
            how: Any = {"images": images or "random", "alpha": alpha, "margin": margin}
            show_page(arms_page(api.compare_arms(places[0], arms, **how), plan_power, slices), as_machine)
            return
        found = api.compare(*names, run=run, alpha=alpha, margin=margin, until_decided=until_decided, max_t=max_t)
        page = compare_page(found, flips, slices)
        show_page(page, as_machine)
        if plot:
            plot_curves(page.curves, plot)


def _end_with_texts(
    names: list[str], run: str | None, arms: Mapping[str, Sequence[str]] | None, alpha: float, as_machine: bool
) -> None:
    """Show what there is to compare of runs over texts, and end; nothing where what is named is none."""
    texts = named_texts([run] if run else names, names if run else (), arms, alpha)
    if texts:
        show_page(comparison_page(texts), as_machine)
        raise typer.Exit


def _end_with_measurements(names: list[str], run: str | None, arms: list[str], as_machine: bool) -> None:
    """Show what two folders of collapse, diagnose or sweep differ in, and end; nothing where what is named is none."""
    found = named_measurements([run] if run else names, names if run else ())
    if found:
        if arms:
            raise UserError("--arm is of runs, and these are measurements.", "Leave it away.")
        show_page(measured_page(found), as_machine)
        raise typer.Exit


def _arms(texts: Sequence[str], places: Sequence[str]) -> Mapping[str, Sequence[str]] | None:
    """Patterns by the names of their arms: those of `texts`, else of the one plan or run. None if no arm is named."""
    arms = named_arms(texts)
    if not arms and len(places) == 1:
        return api.stated_arms(places[0]) or None
    return arms or None


def _refuse_wrong(with_arms: bool, places: Sequence[str], images: str | None, plot: Path | None) -> None:
    """Raise `UserError` for arms of several runs, a choice of images that there is not, and no place for a plot."""
    if with_arms and len(places) != 1:
        raise UserError(
            f"Arms are compared within one run; {len(places)} names stand here.", "Write: compare RUN --arm …"
        )
    if images not in (None, *get_args(Images)):
        raise unknown_name("choice of images", str(images), get_args(Images))
    if plot:
        require_plots(plot)


def _refuse_unused(with_arms: bool, of_models: Mapping[str, Any], of_arms: Mapping[str, Any]) -> None:
    """Raise `UserError` for an option that would change nothing."""
    for option, value in (of_models if with_arms else of_arms).items():
        if value and with_arms:
            raise UserError(
                f"{option} is of single models, and arms are compared here.", "Name two models and --run RUN."
            )
        if value:
            raise UserError(
                f"{option} is of arms, and none are named.", "Name them: --arm NAME=PATTERN, twice or more."
            )


def _carried_out(plan: str, means: Means, begin: Begin) -> api.Run:
    return api.run_plan_file(plan, means, begin)
