"""`twicing-bench report`: any run again, or several, in every form."""

from typing import Annotated

import typer

from robustbench_twicing import api
from robustbench_twicing.catalog.plugins import code_allowed
from robustbench_twicing.cli.printing import AllowCode, Form, Json, To, print_or_write
from robustbench_twicing.cli.tracking import Log, log_page, refuse_failed, trackers
from robustbench_twicing.errors import UserError, unknown_name
from robustbench_twicing.report.layouts import LAYOUTS
from robustbench_twicing.report.page import Page


def report(
    runs: Annotated[list[str], typer.Argument(help="Runs: folders, plans, latest. The first is the baseline.")],
    to: To = None,
    form: Form = None,
    layout: Annotated[
        str,
        typer.Option(
            help="full; paper: the tables of the Twicing Attention paper, without intervals; model-card: with --to "
            "card.md, Hugging Face's model-index above the tables."
        ),
    ] = "full",
    log: Log = None,
    allow_code: AllowCode = False,
    as_machine: Json = False,
) -> None:
    """Report a run again, or several beside each other: the verdict, tables, models compared, and where it comes from.

    Also of a run that is not finished. Of a run with arms of training seeds the mechanisms are compared, not the
    models. Nothing is computed but figures, from the records.
    """
    with code_allowed(allow_code):
        if layout not in LAYOUTS:
            raise unknown_name("layout", layout, LAYOUTS)
        to_log, read = trackers(log), list[api.Run]()

        def made() -> Page:
            read.extend(_read(runs))
            return LAYOUTS[layout](read)

        page = print_or_write(to, form, as_machine, made)
        refuse_failed(log_page(to_log, read, page))


def _read(named: list[str]) -> list[api.Run]:
    folders = [api.run_folder(name) for name in named]
    twice = [str(folder) for folder in folders if [other.resolve() for other in folders].count(folder.resolve()) > 1]
    if twice:
        raise UserError(f"The run {twice[0]} is named twice.", "Name each run once.")
    return [api.load_run(folder) for folder in folders]
