"""`twicing-bench cache`."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from robustbench_twicing.report.estimate import size
from robustbench_twicing.results.leftovers import prune as prune_runs
from robustbench_twicing.results.leftovers import survey
from robustbench_twicing.results.store import RUNS


def cache(
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove shards that no manifest names, damaged ones and half-written files.")
    ] = False,
) -> None:
    """Show what the runs under results/runs hold, and what of it no manifest names any more."""
    if prune:
        _prune()
        return
    holdings = survey()
    table = Table(title=f"Runs in {RUNS}", title_justify="left")
    for name in ("run", "status"):
        table.add_column(name, no_wrap=name == "status", overflow="fold")
    for name in ("shards", "size", "stray files", "stray size"):
        table.add_column(name, justify="right", no_wrap=True)
    for holding in holdings:
        stray = (str(len(holding.stray)), size(holding.stray_size)) if holding.stray else ("", "")
        table.add_row(holding.folder.name, holding.status, str(holding.shards), size(holding.size), *stray)
    console = Console()
    console.print(table)
    total = sum(holding.stray_size for holding in holdings)
    if total:
        console.print(
            f"Stray: named by no manifest. `twicing-bench cache --prune` frees {size(total)}.", highlight=False
        )


def _prune() -> None:
    pruned, left_alone = prune_runs()
    for holding in pruned:
        print(f"{holding.folder}: removed {len(holding.stray)} file(s), {size(holding.stray_size)}")
    for why in left_alone:
        print(f"Left alone: {why}")
    if not pruned and not left_alone:
        print("Nothing to remove.")
