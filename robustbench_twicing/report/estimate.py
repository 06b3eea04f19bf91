"""The page of what a plan would cost."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from robustbench_twicing.report.numbers import count, duration, size
from robustbench_twicing.report.page import Column, Line, Page, Row, Table

if TYPE_CHECKING:  # the module that estimates needs torch
    from robustbench_twicing.runner.estimate import CellCost, Cost

_COLUMNS = (
    Column("model", "model"),
    Column("threat", "threat"),
    Column("samples", "samples", "count"),
    Column("left", "left", "count"),
    Column("forwards", "forwards", "count"),
    Column("backwards", "backwards", "count"),
    Column("seconds", "time", "duration"),
)


def estimate_page(cost: "Cost", folder: str, warnings: Sequence[str] = ()) -> Page:
    """Cells, evaluations, time and disk; `folder` is where the run would go, `warnings` what is wrong with the plan."""
    table = Table("cells", "Still to be done: evaluations at most, time about", _COLUMNS, tuple(map(_row, cost.cells)))
    todo = [cell for cell in cost.cells if cell.left]
    known = [cell.backwards for cell in todo if cell.backwards is not None]
    more = "" if len(known) == len(todo) else " and more"
    lines = [
        Line(
            f"{len(todo)} of {len(cost.cells)} cells, {count(sum(cell.forwards for cell in todo))} forwards and "
            f"{count(sum(known))}{more} backwards at most, about {duration(cost.seconds)} on this machine, "
            f"{size(cost.size)} of disk ({size(cost.free)} free)"
        )
    ]
    if cost.size > cost.free:
        lines.append(Line("The disk has not enough space left.", "bad"))
    lines.append(Line(f"Run folder: {folder}", unbroken=True))
    return Page(
        "What is left to do",
        (table, *lines, *(Line(warning, "warning") for warning in warnings)),
        facts={**asdict(cost), "seconds": cost.seconds, "folder": folder, "warnings": warnings},
    )


def _row(cell: "CellCost") -> Row:
    """The cell; of one that is done nobody asks how long it takes."""
    row = asdict(cell)
    return row if cell.left else row | {"seconds": None}
