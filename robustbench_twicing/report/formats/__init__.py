"""How a page is written: one file per format, and this table of them."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from robustbench_twicing.catalog.plugins import find_plugin, plugin_names
from robustbench_twicing.errors import UserError, unknown_name
from robustbench_twicing.report.formats import csv, html, json, junit, latex, markdown, terminal
from robustbench_twicing.report.page import Page
from robustbench_twicing.report.text import console
from robustbench_twicing.results.store import write_whole


class Format(NamedTuple):
    """One way to write a page."""

    ending: str
    """Of a file in this format."""
    write: Callable[[Page], bytes]


FORMATS = {
    "terminal": Format(".txt", terminal.write),
    "json": Format(".json", json.write),
    "junit": Format(".xml", junit.write),
    "markdown": Format(".md", markdown.write),
    "html": Format(".html", html.write),
    "latex": Format(".tex", latex.write),
    "csv": Format(".csv", csv.write),
    "long-csv": Format(".long.csv", csv.write_long),
}


def show(page: Page, name: str = "terminal") -> None:
    """Print a page to standard output. Raises `UserError` for a format that there is not."""
    if name == "terminal":
        terminal.show(page, console())  # knows the width and the colours
    else:
        sys.stdout.write(_format(name).write(page).decode())


def save(page: Page, path: Path, name: str) -> None:
    """Write a page into a file, whole or not at all. Raises `UserError`."""
    write_whole(path, _format(name).write(page))


def format_names() -> list[str]:
    """Every format, those of other packages last."""
    return [*FORMATS, *plugin_names("formats", FORMATS)]


def endings() -> dict[str, str]:
    """The format of every ending of a file; of two formats with one ending, the first of `format_names`."""
    known: dict[str, str] = {}
    for name in format_names():
        known.setdefault(_format(name).ending, name)
    return known


def _format(name: str) -> Format:
    if name in FORMATS:
        return FORMATS[name]
    found = find_plugin("formats", name)
    if found is None:
        raise unknown_name("format", name, format_names())
    if not isinstance(found.value, Format):
        raise UserError(
            f"Format {name!r} is a {type(found.value).__name__}.",
            "It is a Format of robustbench_twicing.report.formats; docs/plugins.md has an example.",
        )
    return found.value
