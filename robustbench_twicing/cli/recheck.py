"""`twicing-bench recheck`."""

import secrets
import sys
from typing import Annotated, Any

import typer

from robustbench_twicing import api
from robustbench_twicing.catalog.config import data_dirs, settings
from robustbench_twicing.catalog.datasets import on_disk
from robustbench_twicing.catalog.plugins import code_allowed
from robustbench_twicing.cli.options import COMPUTING, DIRECTORIES, FROST, Quiet, means_of, taking
from robustbench_twicing.cli.printing import AllowCode, Json, show_page
from robustbench_twicing.cli.progress import loading
from robustbench_twicing.errors import EXIT_DISPROVED, UserError
from robustbench_twicing.machine.remote import place_of_text
from robustbench_twicing.report.progress import following
from robustbench_twicing.report.recheck import recheck_page

_HOW = {name: COMPUTING[name] for name in ("device", "batch_size")}


@taking({**DIRECTORIES, **FROST, **_HOW})
def recheck(
    run: Annotated[str, typer.Argument(help="A run: its folder, its plan, latest; or the file of a bundle.")],
    sample: Annotated[int, typer.Option(min=1, help="Records to compute again, drawn at random.")] = 50,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="Where you have a model's weights: NAME=CHECKPOINT; repeatable."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of the drawing. Default: one that nobody can foresee, and it is printed.")
    ] = None,
    quiet: Quiet = False,
    allow_code: AllowCode = False,
    as_machine: Json = False,
    **said: Any,
) -> None:
    """Compute some records of a run again, from weights and data of your own, and bound how many are wrong.

    They are drawn at random. A difference that rounding alone can make, near a tie, is shown and is no fault.

    Exit codes: 0 none of them is wrong, 5 some are, 2 there is nothing to check, or with other weights or data.
    """
    weights = dict(_named(text) for text in model or [])
    said["directories"] = data_dirs(said["directories"] or (), on_disk())
    means = means_of(said).over(settings().means())
    file = place_of_text(run)
    path = file if file.is_file() and not run.endswith(".toml") else api.run_folder(run)
    loading(quiet)
    with following(quiet) as begin, code_allowed(allow_code):
        from robustbench_twicing.runner.recheck import recheck as computed_again

        chosen = secrets.randbelow(2**32) if seed is None else seed
        found = computed_again(path, sample, chosen, means, weights=weights, begin=begin)
    show_page(recheck_page(found), as_machine)
    if found.wrong:
        sys.exit(EXIT_DISPROVED)


def _named(text: str) -> tuple[str, str]:
    name, sign, file = text.partition("=")
    if not (name and sign and file):
        raise UserError(f"--model {text} names no weights.", "Write NAME=CHECKPOINT, as the run calls the model.")
    return name, file
