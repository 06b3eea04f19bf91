"""`twicing-bench verify`."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from robustbench_twicing.catalog.places import require_place
from robustbench_twicing.catalog.published import SETS
from robustbench_twicing.catalog.published import published as published_figures
from robustbench_twicing.cli.options import COMPUTING, DIRECTORIES, IMAGES, MODELS, Quiet, stated, taking
from robustbench_twicing.cli.printing import Json, show_page
from robustbench_twicing.cli.progress import loading
from robustbench_twicing.errors import EXIT_FAILED_RECORDS, EXIT_INCONCLUSIVE, UserError
from robustbench_twicing.report.notes import model_line
from robustbench_twicing.report.page import Line
from robustbench_twicing.report.progress import following
from robustbench_twicing.report.published import published_page

_HOW = {name: {**MODELS, **IMAGES}[name] for name in ("weights", "resample_pos_embed", "recipe", "limit")}


@taking({**DIRECTORIES, **_HOW, **COMPUTING})
def verify(
    model: Annotated[str, typer.Option("--model", "-m", help="NAME or NAME=CHECKPOINT.")],
    published_as: Annotated[
        str | None, typer.Option("--as", help="Name in the published table. Default: that of the weights.")
    ] = None,
    published: Annotated[
        Path | None, typer.Option(help="Another table of published accuracies. Default: timm's results.")
    ] = None,
    explain: Annotated[bool, typer.Option(help="Try what could explain a miss, on the images that missed.")] = True,
    quiet: Quiet = False,
    as_machine: Json = False,
    **said: Any,
) -> None:
    """Compare a model with its published accuracies, and look for the cause of a miss.

    Exit codes: 0 all that could be checked are inside; 1 one is outside, or samples failed; 2 wrong use; 4 too few
    images to tell.
    """
    understood = stated({**said, "models": [model], "data": "imagenet"}, at_hand=())
    plan, means = understood.plan, understood.means
    if len(plan.models) > 1:
        raise UserError("Here is room for one model only.", "Pass --weights raw or --weights ema.")
    (spec,) = plan.models
    kind, _, place = spec.weights.partition(":")
    name = published_as or (
        place.removeprefix("timm/") if kind != "file" else model.partition("=")[0].partition("@")[0]
    )
    figures = published_figures(name, published)
    for reads in dict.fromkeys(SETS[data].reads for data in figures):
        if reads in means.directories:
            require_place(means.directories[reads])
    loading(quiet)

    from robustbench_twicing.runner.published import verify_model

    with following(quiet) as begin:
        folder, verification = verify_model(understood, name, figures, explain=explain, begin=begin)
    manifest = folder.manifest()
    known_as = Line(model_line(spec.name, manifest.models[spec.name]))
    remarks = (*manifest.decided, *folder.remarks)
    show_page(published_page(verification, known_as, str(folder.path), remarks), as_machine)
    if verification.verdict == "outside" or any(check.failed for check in verification.checks):
        sys.exit(EXIT_FAILED_RECORDS)
    if verification.verdict == "too few to tell":
        sys.exit(EXIT_INCONCLUSIVE)
