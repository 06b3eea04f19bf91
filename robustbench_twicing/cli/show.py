"""`twicing-bench show`: any run again."""

from typing import Annotated

import typer

from robustbench_twicing import api
from robustbench_twicing.catalog.plugins import code_allowed
from robustbench_twicing.cli.printing import AllowCode, Json
from robustbench_twicing.errors import UserError
from robustbench_twicing.report.formats import format_names
from robustbench_twicing.report.formats import show as show_as
from robustbench_twicing.report.run import run_page


def show(
    run: Annotated[str, typer.Argument(help="The run: its folder, its plan, or latest.")],
    form: Annotated[
        str | None, typer.Option("--format", help=f"How it is written: {', '.join(format_names())}. Default terminal.")
    ] = None,
    allow_code: AllowCode = False,
    as_machine: Json = False,
) -> None:
    """Print a run again, also one that is not finished. Nothing is computed but its figures, from its records."""
    if form and as_machine:
        raise UserError("--json and --format are both given.", "--json is --format json; leave one of them away.")
    with code_allowed(allow_code):
        show_as(run_page(api.load_run(api.run_folder(run))), "json" if as_machine else form or "terminal")
