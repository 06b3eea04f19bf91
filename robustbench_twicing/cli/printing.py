"""What many commands take; a page to standard output, for people or with --json for machines, or to files."""

from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from robustbench_twicing.cli.panels import OUTPUT_PANEL
from robustbench_twicing.errors import UserError
from robustbench_twicing.report.formats import FORMATS, show
from robustbench_twicing.report.page import Page
from robustbench_twicing.report.targets import target
from robustbench_twicing.report.text import say

To = Annotated[
    list[str] | None,
    typer.Option(
        "--to",
        metavar="FILE",
        rich_help_panel=OUTPUT_PANEL,
        help="Write .html, .tex, .md, .csv, .json or plots/ instead.",
    ),
]
Form = Annotated[
    str | None,
    typer.Option("--format", metavar="NAME", rich_help_panel=OUTPUT_PANEL, help=f"Print it as {', '.join(FORMATS)}."),
]
Json = Annotated[
    bool, typer.Option("--json", rich_help_panel=OUTPUT_PANEL, help="Print JSON instead of text and tables.")
]
AllowCode = Annotated[
    bool,
    typer.Option(
        "--allow-code", rich_help_panel=OUTPUT_PANEL, help="Run the code that plans and settings name (`python:`)."
    ),
]
"""Plans and configuration files travel with cloned repositories, so what they name runs only if the user says so."""


def show_page(page: Page, as_machine: bool) -> None:
    """Print a page."""
    show(page, "json" if as_machine else "terminal")


def print_or_write(to: Sequence[str] | None, form: str | None, as_machine: bool, made: Callable[[], Page]) -> Page:
    """Print a page, or write it to the files `to`, whose names are looked at before it is made; returns it.

    Raises `UserError`.
    """
    if form and as_machine:
        raise UserError("--json and --format are both given.", "--json is --format json; leave one of them away.")
    targets = [target(name) for name in to or []]
    page = made()
    for place in targets:
        place.save(page)
    if form or as_machine or not targets:
        show(page, "json" if as_machine else form or "terminal")
    for place in targets:
        say(f"Wrote {place.path}", stderr=True)
    return page
