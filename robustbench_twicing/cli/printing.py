"""What many commands take; a page to standard output, for people or with --json for machines."""

from typing import Annotated

import typer

from robustbench_twicing.report.formats import show
from robustbench_twicing.report.page import Page

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text and tables.")]


AllowCode = Annotated[
    bool,
    typer.Option(
        "--allow-code",
        help="Code that plans or twicing-bench.toml name (`python:`) runs.",
    ),
]
"""Plans and configuration files travel with cloned repositories, so what they name runs only if the user says so."""


def show_page(page: Page, as_machine: bool) -> None:
    """Print a page."""
    show(page, "json" if as_machine else "terminal")
