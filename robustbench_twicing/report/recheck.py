"""The page of `recheck`: how many records were done again, which differ, and how many may be wrong in all."""

from robustbench_twicing.report.numbers import count, percent
from robustbench_twicing.report.page import Column, Judged, Line, Page, Table
from robustbench_twicing.results.drawn import LEVEL, Rechecked

_COLUMNS = (
    Column("model", "model"),
    Column("threat", "threat"),
    Column("sample", "sample"),
    Column("column", "column"),
    Column("recorded", "recorded"),
    Column("computed", "computed here"),
)


def recheck_page(found: Rechecked) -> Page:
    """What was drawn, everything that differs, and the bound."""
    groups = ("model", "threat", "sample")
    wrong, near = (tuple(one._asdict() for one in part) for part in (found.differ, found.near_ties))
    doubted = f" {count(found.in_doubt)} differ near a tie, which rounding explains." if found.in_doubt else ""
    said = f"{count(found.wrong)} differ" if found.wrong else "none is wrong"
    of = f"{count(found.checked)} of {count(found.records)} records, drawn at random, were computed again"
    headline = Line(
        f"{of}: {said}.{doubted} {_bound(found)}",
        "bad" if found.wrong else "warning" if found.in_doubt else "good",
    )
    again = f"Drawn with --seed {found.seed}; the same number draws the same records. `bundle verify` says whether the "
    parts = (
        Table("differ", "Records that are wrong", _COLUMNS, wrong, groups=groups),
        Table("near_ties", "Near a tie: rounding alone makes this difference", _COLUMNS, near, groups=groups),
        Line(again + "tables follow from the records.", "note"),
    )
    facts = {
        "path": found.path,
        "plan_hash": found.manifest.plan_hash,
        "records": found.records,
        "checked": found.checked,
        "seed": found.seed,
        "wrong": found.wrong,
        "near_ties": found.in_doubt,
        "level": LEVEL,
        "most_wrong": found.bound,
        "differ": wrong,
        "differ_near_a_tie": near,
    }
    judged = Judged(str(found.path), "recheck", said, "failed" if found.wrong else "passed", _bound(found))
    return Page(f"Records of {found.path.name}, again", parts, headline=headline, facts=facts, judged=(judged,))


def _bound(found: Rechecked) -> str:
    if found.checked == found.records:
        return "These are all."
    among = ", near ties counted as wrong," if found.in_doubt else ""
    return f"At most {percent(found.bound)} % of all records are wrong{among} with {percent(LEVEL, 0)} % confidence."
