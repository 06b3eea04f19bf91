"""A page as its readers get it."""

import json
from io import StringIO
from typing import Any

from rich.console import Console

from robustbench_twicing.report.formats import FORMATS, terminal
from robustbench_twicing.report.page import Page


def printed(page: Page, width: int = 200) -> str:
    """In a terminal of that width."""
    console = Console(width=width, file=StringIO())
    terminal.show(page, console)
    return console.file.getvalue()


def parsed(page: Page) -> Any:
    """What a machine reads from the JSON."""
    return json.loads(FORMATS["json"].write(page))


def written(page: Page, name: str) -> str:
    """In one of the formats."""
    return FORMATS[name].write(page).decode()
