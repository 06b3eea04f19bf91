"""Accuracy by night, in the terminal and for machines."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from robustbench_twicing.history import Point, Series
from robustbench_twicing.report.compare import signed_points
from robustbench_twicing.report.console import percent

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 30  # nights that fit into a line


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
    table = Table(title="Accuracy by night", title_justify="left")
    for name in ("model", "threat", "data"):
        table.add_column(name, no_wrap=True)
    table.add_column("samples", justify="right")
    table.add_column("nights", justify="right")
    table.add_column("oldest → newest", no_wrap=True)
    for name in ("newest %", "95 % interval", "change", "weights", "on"):
        table.add_column(name, justify="right", no_wrap=True)
    for line in found:
        shown = line.points[-_WIDTH:]
        newest = shown[-1]
        low, high = newest.interval
        table.add_row(
            line.model,
            line.threat,
            line.data,
            str(line.samples),
            str(len(line.points)),
            sparkline([point.accuracy for point in shown], high - low),
            "-" if newest.accuracy is None else percent(newest.accuracy),
            f"{percent(low)} - {percent(high)}",
            _change(line.points),
            newest.weights_hash,
            newest.started[:10],
        )
    console.print(table)


def as_json(found: Sequence[Series]) -> list[dict[str, Any]]:
    """Every series with all its points, for machines."""
    return [asdict(line) for line in found]


def _change(points: Sequence[Point]) -> str:
    if len(points) < 2:
        return ""
    before, now = points[-2].accuracy, points[-1].accuracy
    return "-" if before is None or now is None else signed_points(now - before)
