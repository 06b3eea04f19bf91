"""Accuracy by night, in the terminal and for machines."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from robustbench_twicing.report.compare import signed_points
from robustbench_twicing.report.console import percent
from robustbench_twicing.results.history import Point, Series

_BARS = "▁▂▃▄▅▆▇█"
_NIGHTS = 30
"""The newest nights in a wide terminal; half as many in a narrow one."""
_WIDE = 150
_ONLY_WIDE = ("data", "samples", "nights", "95 % interval", "weights", "on")


def sparkline(values: Sequence[float | None], least: float = 0.0) -> str:
    """A bar for each value between the smallest and the largest; a blank for None.

    `least` is the smallest range that fills the height: the width of an interval keeps noise looking like noise.
    """
    known = [value for value in values if value is not None]
    if not known:
        return " " * len(values)
    span = max(max(known) - min(known), least)
    low = (max(known) + min(known) - span) / 2
    top = len(_BARS) - 1
    return "".join(
        " " if value is None else _BARS[round(top * (value - low) / span) if span else top // 2] for value in values
    )


def print_history(console: Console, found: Sequence[Series]) -> None:
    """A line for each series: sparkline, newest accuracy with its interval, change since the night before."""
    wide = console.width >= _WIDE
    table = Table(title="Accuracy by night", title_justify="left")
    left = ("model", "threat", "oldest → newest", "data")
    for name in (*left, "newest %", "change", "samples", "nights", "95 % interval", "weights", "on"):
        if wide or name not in _ONLY_WIDE:
            head = name if wide or name != "newest %" else "newest %, 95 %"
            justify: Literal["left", "right"] = "left" if name in left else "right"
            table.add_column(head, justify=justify, no_wrap=name not in ("model", "threat"), overflow="fold")
    for line in found:
        shown = line.points[-(_NIGHTS if wide else _NIGHTS // 2) :]
        newest = shown[-1]
        low, high = newest.interval or (0.0, 0.0)
        interval = f"{percent(low)} - {percent(high)}" if newest.interval else ""
        accuracy = "-" if newest.accuracy is None else percent(newest.accuracy)
        cells = {
            "model": line.model,
            "threat": line.threat if wide else f"{line.threat}\n{line.data}, n = {line.samples}",
            "oldest → newest": sparkline([point.accuracy for point in shown], high - low),
            "data": line.data,
            "newest %": accuracy if wide or newest.accuracy is None else f"{accuracy} ({interval})",
            "change": _change(line.points),
            "samples": str(line.samples),
            "nights": str(len(line.points)),
            "95 % interval": interval,
            "weights": newest.weights_hash,
            "on": newest.started[:10],
        }
        table.add_row(*(cell for name, cell in cells.items() if wide or name not in _ONLY_WIDE))
    console.print(table)


def as_json(found: Sequence[Series]) -> list[dict[str, Any]]:
    """Every series with all its points, for machines."""
    return [asdict(line) for line in found]


def _change(points: Sequence[Point]) -> str:
    if len(points) < 2:
        return ""
    before, now = points[-2].accuracy, points[-1].accuracy
    return "-" if before is None or now is None else signed_points(now - before)
