"""Where two models, or two mechanisms, differ: the classes, severities and margins that stand out."""

from dataclasses import asdict

from robustbench_twicing.report.figures import level
from robustbench_twicing.report.numbers import count
from robustbench_twicing.report.page import Column, Into, Line, Row, Table
from robustbench_twicing.results.arm_comparison import ArmComparisons
from robustbench_twicing.results.arm_slices import FEWEST_IMAGES, ArmSlice, ArmSlices
from robustbench_twicing.results.comparison import Comparisons
from robustbench_twicing.results.slices import Slice, Slices

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
    slices, share = found.slices, f"{100 * found.alpha:g} %"
    if not slices.asked:
        return ()
    table, said = _listed("Where the models differ", _COLUMNS, slices)
    return table, Line(
        f"Slices: {count(len(slices.found))} of {count(slices.asked)} stand out{said}. A slice is the images of a "
        "class, of a severity, or of a quarter by margin (the mean of both models' on the clean image: the smallest "
        "are the hardest), under clean images, one attack or one suite. An image counts once: lost, if the candidate "
        "loses more than it gains on it over these threats. p: exact sign test, Benjamini-Hochberg over all slices "
        f"with flips enough to show anything; of those that stand out {share} at most are expected to be chance.",
        "note",
    )


def arm_slice_parts(found: ArmComparisons) -> tuple[Table | Line, ...]:
    """As `slice_parts`, of arms."""
    slices, about = found.slices, "these images" if found.images == "fixed" else "images like these"
    if not slices.asked:
        return ()
    columns = (*_COLUMNS[:4], *_of_arms(level(found.alpha)), *_COLUMNS[6:])
    table, said = _listed("Where the mechanisms differ", columns, slices)
    return table, Line(
        f"Slices: {count(len(slices.found))} of {count(slices.asked)} stand out{said}. A slice is the images of a "
        "class, of a severity, or of a quarter by margin (the mean of all models' on the clean image: the smallest are "
        f"the hardest), under clean images, one attack or one suite, of {FEWEST_IMAGES} images or more. p: the test of "
        f"arms, over training seeds and {about}, Benjamini-Hochberg over all slices; of those that stand out "
        f"{100 * found.alpha:g} % at most are expected to be chance. Intervals are each for its own slice alone.",
        "note",
    )


def _listed(title: str, columns: tuple[Column, ...], slices: Slices | ArmSlices) -> tuple[Table, str]:
    """The clearest slices, and what to say of those that are not shown."""
    table = Table("slices", title, columns, tuple(map(_row, slices.found[:_SHOWN])), aside=True)
    more = len(slices.found) - len(table.rows)
    return table, f"; the {_SHOWN} clearest are shown, --json has all" if more > 0 else ""


def _of_arms(interval: str) -> tuple[Column, ...]:
    return (
        Column("difference", "difference", "points"),
        Column("interval", interval, "points interval", Into("difference", "\n(", ")")),
    )


def _row(one: Slice | ArmSlice) -> Row:
    return {**_slice_facts(one), "models": f"{one.baseline} → {one.candidate}", "slice": f"{one.by}: {one.value}"}


def slices_facts(slices: Slices | ArmSlices) -> Row:
    """How many were asked about, and those that were found."""
    return {"slices": {"asked": slices.asked, "found": [_slice_facts(one) for one in slices.found]}}


def _slice_facts(one: Slice | ArmSlice) -> Row:
    """Its fields, and the verdict."""
    return {**asdict(one), "verdict": one.verdict}
