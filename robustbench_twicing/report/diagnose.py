"""The page of `diagnose`: a grade with its evidence, and whether the difference of two models is real."""

from collections.abc import Iterator, Sequence
from typing import Any

from robustbench_twicing.inside.diagnosis import Diagnosis, Difference, Grade, Item
from robustbench_twicing.report.marks import Tone
from robustbench_twicing.report.numbers import interval, points
from robustbench_twicing.report.page import Column, Judged, Line, Page, Table

_TONES: dict[str, Tone] = {"A": "good", "B": "good", "C": "warning", "D": "bad", "F": "bad"}
_GRADES: dict[Grade, str] = {
    "A": "nothing found that speaks against it",
    "B": "a remark",
    "C": "weaker attacks say too much: use the stronger ones",
    "D": "doubtful",
    "F": "its accuracy under attack is no robustness",
}


def diagnose_page(found: Sequence[Diagnosis], differences: Sequence[Difference]) -> Page:
    """Of each model the items, the worst first in the headline; of two and more also their differences."""
    parts: list[Line | Table] = []
    for one in found:
        parts.append(
            Line(f"{one.model} at L∞ ≤ {one.eps}: {one.clean} image(s) that are right without an attack.", "note")
        )
        parts.append(_items(one))
        if one.grade != "A":
            parts += [Line(f"{item.title}: {item.meaning} {item.change}", _TONES[item.grade]) for item in one.reasons]
        parts += [Line(f"Not checked. {skipped}", "note") for skipped in one.skipped]
        if one.robust:
            share, pgd = (100 * len(ids) / one.clean for ids in (one.robust, one.under_pgd))
            parts.append(Line(f"Robust to everything found: {share:.1f} % of them; to 20 steps of PGD: {pgd:.1f} %."))
    if differences:
        parts.append(_differences(differences))
    parts.append(
        Line("A grade A is no proof: a stronger attack may exist. docs/inside.md says what each check is.", "note")
    )
    return Page(
        "Diagnosis",
        tuple(parts),
        headline=Line(" ".join(_headline(found, differences)), _TONES[_worst(found)]),
        facts={
            "models": [
                {**vars(one), "items": [item._asdict() for item in one.items], "grade": one.grade} for one in found
            ],
            "differences": [one._asdict() for one in differences],
        },
        judged=tuple(_judged(found)),
    )


def _worst(found: Sequence[Diagnosis]) -> Grade:
    return max((one.grade for one in found), default="A")


def _headline(found: Sequence[Diagnosis], differences: Sequence[Difference]) -> Iterator[str]:
    for one in found:
        why = f" ({', '.join(item.title for item in one.reasons)})" if one.reasons else ""
        yield f"{one.model}: {one.grade}, {_GRADES[one.grade]}{why}."
    for gap in differences:
        ends = interval((gap.low, gap.high), points, " to ")
        yield f"{gap.candidate} against {gap.baseline}: {gap.verdict}, {points(gap.strongest)} points ({ends})."


def _items(one: Diagnosis) -> Table:
    columns = (
        Column("title", "check"),
        Column("said", "number", "prose"),
        Column("grade", "grade", tones=_TONES),
        Column("meaning", "what it is", "prose", narrow="last"),
        Column("change", "what would change it", "prose", narrow="last"),
    )
    rows = tuple({"model": one.model, **item._asdict()} for item in one.items)
    return Table(f"items-{one.model}", f"{one.model}: grade {one.grade}", columns, rows)


def _differences(differences: Sequence[Difference]) -> Table:
    rows: list[dict[str, Any]] = [
        {
            **gap._asdict(),
            "pgd_interval": (gap.pgd_low, gap.pgd_high),
            "interval": (gap.low, gap.high),
        }
        for gap in differences
    ]
    columns = (
        Column("candidate", "model"),
        Column("baseline", "against"),
        Column("n", "n", "count"),
        Column("pgd", "under PGD-20", "points"),
        Column("pgd_interval", "95 % interval", "points interval"),
        Column("strongest", "under the strongest found", "points"),
        Column("interval", "95 % interval", "points interval"),
        Column("verdict", "the difference is", tones={"real": "good", "not to be trusted": "bad"}),
    )
    return Table("differences", "Differences on the same images, in points", columns, tuple(rows))


def _judged(found: Sequence[Diagnosis]) -> Iterator[Judged]:
    for one in found:
        for item in one.items:
            bad = item.grade in ("D", "F")
            outcome: Any = "failed" if bad else "unclear" if item.grade == "C" else "passed"
            yield Judged(one.model, item.title, item.grade, outcome, _reason(item))


def _reason(item: Item) -> str:
    return "" if item.grade == "A" else f"{item.said}: {item.meaning}"
