"""Where two models differ: the classes, severities and margins that stand out."""

from dataclasses import asdict

from robustbench_twicing.report.numbers import count
from robustbench_twicing.report.page import Column, Line, Row, Table
from robustbench_twicing.results.comparison import Comparisons
from robustbench_twicing.results.slices import Slice

_SHOWN = 20
_COLUMNS = (
    Column("of", "threat"),
    Column("slice", "images"),
    Column("models", "models"),
    Column("images", "n", "count"),
    Column("lost", "lost", "count"),
    Column("gained", "gained", "count"),
    Column("q", "p (BH)", "p"),
    Column("verdict", "verdict", "prose", tones={"better": "good", "worse": "bad"}),
)


def slice_parts(found: Comparisons) -> tuple[Table | Line, ...]:
    """The slices that were found, the clearest ones, and how they were looked for; nothing where none could be."""
    slices, level = found.slices, f"{100 * found.alpha:g} %"
    if not slices.asked:
        return ()
    table = Table("slices", "Where the models differ", _COLUMNS, tuple(map(_row, slices.found[:_SHOWN])), aside=True)
    more = len(slices.found) - len(table.rows)
    said = f"; the {_SHOWN} clearest are shown, --json has all" if more > 0 else ""
    return table, Line(
        f"Slices: {count(len(slices.found))} of {count(slices.asked)} stand out{said}. A slice is the images of a "
        "class, of a severity, or of a quarter by margin (the mean of both models' on the clean image: the smallest "
        "are the hardest), under clean images, one attack or one suite. An image counts once: lost, if the candidate "
        "loses more than it gains on it over these threats. p: exact sign test, Benjamini-Hochberg over all slices "
        f"with flips enough to show anything; of those that stand out {level} at most are expected to be chance.",
        "note",
    )


def _row(one: Slice) -> Row:
    return {**slice_facts(one), "models": f"{one.baseline} → {one.candidate}", "slice": f"{one.by}: {one.value}"}


def slice_facts(one: Slice) -> Row:
    """Its fields, and the verdict."""
    return {**asdict(one), "verdict": one.verdict}
