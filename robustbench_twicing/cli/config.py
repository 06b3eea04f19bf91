"""`twicing-bench config`: what is set, and where each value came from."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from robustbench_twicing.catalog.config import Settings, settings
from robustbench_twicing.cli.once import App

app = App(help="Where data sets and checkpoints lie, and defaults; `config show` lists them.", no_args_is_help=True)


@app.callback()
def root() -> None:
    """Where data sets and checkpoints lie, and defaults; `config show` lists them."""


@app.command()
def show(
    as_machine: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Every value that can be set, and whether it came from a file, the environment or a default.

    A flag of a command wins over all of them.
    """
    found = settings()
    if as_machine:
        rows = [
            {"table": table, "key": key, "value": setting.value, "from": setting.origin}
            for table, entries in found.tables.items()
            for key, setting in entries.items()
        ]
        files = [{"path": str(path), "read": there} for path, there in found.files.items()]
        print(json.dumps({"settings": rows, "files": files}, indent=2, ensure_ascii=False))
        return
    console = Console()
    console.print(_table(found))
    for path, there in found.files.items():
        console.print(Text(f"File {path}: {'read' if there else 'not there'}"), soft_wrap=True)


def _table(found: Settings) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("setting", style="bold", no_wrap=True)
    table.add_column("value", overflow="fold")
    table.add_column("from", overflow="fold")
    for name, entries in found.tables.items():
        for key, (value, origin) in entries.items():
            lost = value is not None and Path(value).is_absolute() and not Path(value).exists()
            table.add_row(f"{name}.{key}", Text(f"{value or '-'}{' (nothing there)' if lost else ''}"), Text(origin))
    return table
