"""`twicing-bench verify`."""

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from robustbench_twicing.catalog.published import published as published_figures
from robustbench_twicing.cli.options import COMPUTING, DIRECTORIES, IMAGES, MODELS, Json, Quiet, stated, taking
from robustbench_twicing.errors import EXIT_FAILED_RECORDS, UserError
from robustbench_twicing.report.console import CellProgress, model_line
from robustbench_twicing.results.manifest import ModelUsed, Verification
from robustbench_twicing.spec.plan import Cell

_HOW = {name: {**MODELS, **IMAGES}[name] for name in ("weights", "resample_pos_embed", "recipe", "limit")}
_WIDE = 100
"""Columns from which the interval has a column of its own; below, it stands under the accuracy."""


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

    Exit codes: 0 all that could be checked are inside; 1 one is outside, or samples failed; 2 wrong use.
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

    from robustbench_twicing.runner.published import verify_model

    with ExitStack() as stack:

        def begin(to_do: dict[Cell, tuple[int, int]]) -> CellProgress:
            return stack.enter_context(CellProgress(Console(stderr=True), to_do, quiet))

        folder, verification = verify_model(plan, means, name, figures, explain=explain, begin=begin)
    if as_machine:
        content = {**verification.model_dump(mode="json"), "inside": verification.inside}
        print(json.dumps({"run": str(folder.path), **content}, indent=2, ensure_ascii=False))
    else:
        _print(Console(), verification, folder.manifest().models[spec.name], str(folder.path))
    if not verification.inside or any(check.failed for check in verification.checks):
        sys.exit(EXIT_FAILED_RECORDS)


def _print(console: Console, verification: Verification, model: ModelUsed, folder: str) -> None:
    table = Table(
        title=f"{verification.model} beside the published {verification.published_model}", title_justify="left"
    )
    failed = ["failed"] if any(check.failed for check in verification.checks) else []
    wide = console.width >= _WIDE
    for head in ("data set", "n", *failed, "top-1 %", "published", "diff", *(["interval"] if wide else []), "verdict"):
        justify: Literal["left", "right"] = "left" if head in ("data set", "verdict") else "right"
        table.add_column(head, no_wrap=head not in ("data set", "n"), overflow="fold", justify=justify)
    for check in verification.checks:
        measured = float("nan") if check.measured is None else check.measured
        interval = f"{100 * check.low:.2f} - {100 * check.high:.2f}"
        table.add_row(
            check.dataset,
            str(check.n) if check.n >= check.images else f"{check.n} of {check.images}",
            *([str(check.failed)] if failed else []),
            f"{100 * measured:.2f}" + ("" if wide else f"\n({interval})"),
            f"{100 * check.published:.2f}",
            f"{100 * (measured - check.published):+.2f}",
            *([interval] if wide else []),
            Text("inside") if check.inside else Text("outside", style="bold red"),
        )
    console.print(table)
    for name, why in verification.not_checked.items():
        console.print(Text(f"{name}: not checked, {why}", style="yellow"), soft_wrap=True)
    missed = [check for check in verification.checks if not check.inside]
    for check in missed:
        if verification.tried:
            cause = check.cause or "none of the changes that were tried brings it inside"
            console.print(Text(f"{check.dataset}: likeliest cause: {cause}", style="bold"), soft_wrap=True)
    if missed and verification.tried:
        console.print(Text(f"Published with: {missed[0].conditions}. Tried: {'; '.join(verification.tried)}."))
    console.print(Text(f"The rule: {verification.rule}.", style="dim"))
    console.print(Text(model_line(verification.model, model)))
    console.print(Text(f"Run folder: {folder}"), soft_wrap=True)
