"""The page of `compare` for what collapse, diagnose and sweep kept: figures of two models on the same images."""

from typing import Any

from robustbench_twicing.inside.figures import BY_KEY
from robustbench_twicing.report.numbers import signed
from robustbench_twicing.report.page import Column, Line, Page, Row, Sheet, Table
from robustbench_twicing.results.measured_comparison import MeasuredComparison, MeasuredRow


def measured_page(found: MeasuredComparison) -> Page:
    """A table; of `collapse` of the last place that both have, the others being in the JSON."""
    rows = [row for row in found.rows if found.command != "collapse" or row.place == _last(found, row)]
    columns = (
        Column("threat", "threat"),
        Column("place", "behind" if found.command == "collapse" else "method in" if found.command == "sweep" else "of"),
        Column("heading", "figure"),
        Column("baseline_value", "baseline", "decimal3"),
        Column("candidate_value", "candidate", "decimal3"),
        Column("said", "difference", "eps"),
        Column("interval", "95 % interval", "eps"),
        Column("n", "images", "count"),
    )
    pairs = dict.fromkeys((row.baseline, row.candidate) for row in rows)
    tables = [
        Table(
            f"{baseline} {candidate}",
            f"{candidate} (candidate) minus {baseline} (baseline), on the same images of {found.data}",
            columns,
            tuple(_row(row) for row in rows if (row.baseline, row.candidate) == (baseline, candidate)),
            groups=("threat", "place"),
        )
        for baseline, candidate in pairs
    ]
    notes = [Line(f"{name}: grade {grade}") for name, grade in found.grades]
    notes += [Line(f"Not compared. {said}", "warning") for said in found.not_compared]
    if any(row.low is None for row in rows):
        notes.append(Line("An interval needs 2 images at least.", "warning"))
    notes.append(
        Line("Intervals are over images, each for itself: of these weights, not of a method (docs/inside.md).", "note")
    )
    return Page(
        f"Comparison of {found.command}",
        (*tables, *notes),
        facts={**found._asdict(), "rows": [row._asdict() for row in found.rows], "grades": dict(found.grades)},
        sheet=Sheet(tuple(row._asdict() for row in found.rows), ("baseline", "candidate", "threat", "place", "figure")),
    )


def _last(found: MeasuredComparison, row: MeasuredRow) -> str:
    return [one.place for one in found.rows if one[:3] == row[:3]][-1]


def _row(row: MeasuredRow) -> Row:
    figure = BY_KEY.get(row.figure)
    heading = row.figure
    if figure is not None:
        heading = figure.heading if figure.of == "tokens" else f"{figure.heading} ({figure.of})"
    known = row.low is not None and row.high is not None
    said: dict[str, Any] = {
        "heading": heading,
        "said": signed(row.difference, 4),
        "interval": f"{signed(row.low, 4)} to {signed(row.high, 4)}" if known else "too few images",
    }
    return {**row._asdict(), **said}
