"""`twicing-bench report`: any run again, or several, in every form."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from robustbench_twicing import api
from robustbench_twicing.catalog.plugins import code_allowed
from robustbench_twicing.cli.printing import AllowCode, Form, Json, To, print_or_write
from robustbench_twicing.errors import UserError, unknown_name
from robustbench_twicing.report.full import full_page
from robustbench_twicing.report.language import language_page
from robustbench_twicing.report.page import Page
from robustbench_twicing.report.paper import paper_page
from robustbench_twicing.results.compared import compared_runs
from robustbench_twicing.results.scored_text import refuse_text
from robustbench_twicing.results.text_comparison import compared_texts


def report(
    runs: Annotated[list[str], typer.Argument(help="Runs: folders, plans, latest. The first is the baseline.")],
    to: To = None,
    form: Form = None,
    layout: Annotated[
        str, typer.Option(help="full, or paper: the tables of the Twicing Attention paper, without intervals.")
    ] = "full",
    allow_code: AllowCode = False,
    as_machine: Json = False,
) -> None:
    """Report a run again, or several beside each other: the verdict, tables, models compared, and where it comes from.

    Also of a run that is not finished. Of a run with arms of training seeds the mechanisms are compared, not the
    models. Nothing is computed but figures, from the records.
    """
    with code_allowed(allow_code):
        if layout not in _LAYOUTS:
            raise unknown_name("layout", layout, _LAYOUTS)
        print_or_write(to, form, as_machine, lambda: _page(runs, layout))


_LAYOUTS = ("full", "paper")


def _page(named: list[str], layout: str) -> Page:
    folders = [api.run_folder(name) for name in named]
    twice = [str(folder) for folder in folders if [other.resolve() for other in folders].count(folder.resolve()) > 1]
    if twice:
        raise UserError(f"The run {twice[0]} is named twice.", "Name each run once.")
    runs = [api.load_run(folder) for folder in folders]
    tasks = {run.manifest.plan.task for run in runs}
    if len(tasks) > 1:
        raise UserError("Some of these runs are over images and some over a text.", "Report them one by one.")
    page, compared = _PAGES[tasks.pop()]
    if layout == "paper":
        refuse_text(runs[0].manifest.plan.task, "The layout of the paper")
        return paper_page(runs)
    try:
        return page(runs, compared(runs))
    except UserError as error:
        if len(runs) > 1:
            raise
        return page(runs, None, error.message)  # its own tables can be shown


_PAGES: Mapping[str, tuple[Callable[..., Page], Callable[..., Any]]] = {
    "images": (full_page, compared_runs),
    "text": (language_page, compared_texts),
}
"""By task: the page, and what it compares."""
