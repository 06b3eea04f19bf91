"""The page of accuracy by night."""

from collections.abc import Sequence
from dataclasses import asdict

from robustbench_twicing.report.notes import ELSEWHERE
from robustbench_twicing.report.numbers import Trend
from robustbench_twicing.report.page import Column, Into, Line, Page, Row, Table
from robustbench_twicing.results.history import Series

_NIGHTS = 30
"""The newest that a trend shows; fewer in a narrow terminal."""

_COLUMNS = (
    Column("model", "model"),
    Column("threat", "threat"),
    Column("trend", "oldest → newest", "trend"),
    Column("plan", "plan", "name", Into("model", "\n")),
    Column("data", "data", "name", Into("threat", "\n")),
    Column("accuracy", "newest %", "percent", short="newest %, 95 %"),
    Column("change", "change", "points"),
    Column("samples", "samples", "count", Into("threat", ", n = ")),
    Column("nights", "nights", "count", "drop"),
    Column("interval", "95 % interval", "percent interval", Into("accuracy", " (", ")")),
    Column("weights", "weights", "name", "drop"),
    Column("on", "on", "date", "drop"),
)


def history_page(found: Sequence[Series]) -> Page:
    """A line for each series: the trend, the newest accuracy with its interval, the change since the night before."""
    table = Table("history", "Accuracy by night", _COLUMNS, tuple(map(_row, found)))
    theirs = list(dict.fromkeys(line.model for line in found if any(point.elsewhere for point in line.points)))
    said = [Line(f"{', '.join(theirs)}: {ELSEWHERE}", "warning")] if theirs else []
    return Page("Accuracy by night", (table, *said), facts=[asdict(line) for line in found])


def _row(line: Series) -> Row:
    shown, newest = line.points[-_NIGHTS:], line.points[-1]
    low, high = newest.interval or (0.0, 0.0)
    row = {
        "model": line.model,
        "threat": line.threat,
        "trend": Trend(tuple(point.accuracy for point in shown), high - low),
        "plan": line.plan,
        "data": line.data,
        "accuracy": newest.accuracy,
        "samples": line.samples,
        "nights": len(line.points),
        "interval": newest.interval,
        "weights": newest.weights_hash,
        "on": newest.started,
    }
    if len(line.points) > 1:
        before, now = line.points[-2].accuracy, newest.accuracy
        row["change"] = None if before is None or now is None else now - before
    return row
