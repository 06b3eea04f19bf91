"""What a dry run found, in the terminal and for machines."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:  # the module that estimates needs torch
    from robustbench_twicing.runner.estimate import Cost


def print_cost(console: Console, cost: "Cost", folder: str) -> None:
    """Cells, evaluations, time and disk."""
    table = Table(title="Still to be done: evaluations at most, time about", title_justify="left")
    for name in ("model", "threat"):
        table.add_column(name, overflow="fold")
    for name in ("samples", "left", "forwards", "backwards", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    for cell in cost.cells:
        backwards = "?" if cell.backwards is None else f"{cell.backwards:,}"
        counts = (f"{cell.samples:,}", f"{cell.left:,}", f"{cell.forwards:,}", backwards)
        table.add_row(cell.model, cell.threat, *counts, duration(cell.seconds) if cell.left else "-")
    console.print(table)
    todo = [cell for cell in cost.cells if cell.left]
    known = [cell.backwards for cell in todo if cell.backwards is not None]
    more = "" if len(known) == len(todo) else " and more"
    console.print(
        Text(
            f"{len(todo)} of {len(cost.cells)} cells, {sum(cell.forwards for cell in todo):,} forwards and "
            f"{sum(known):,}{more} backwards at most, about {duration(cost.seconds)} on this machine, "
            f"{size(cost.size)} of disk ({size(cost.free)} free)"
        )
    )
    if cost.size > cost.free:
        console.print(Text("The disk has not enough space left.", style="bold red"))
    console.print(Text(f"Run folder: {folder}"), soft_wrap=True)


def as_json(cost: "Cost", folder: str) -> dict[str, Any]:
    """A dry run for machines."""
    return {**asdict(cost), "seconds": cost.seconds, "folder": folder}


def duration(seconds: float) -> str:
    """Such as `40 s`, `12 min` or `3.5 h`."""
    if seconds == 0:
        return "0 s"
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 1 else "1 s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def size(count: int) -> str:
    """Bytes with a unit, such as `1.2 MB`."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{count} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"
