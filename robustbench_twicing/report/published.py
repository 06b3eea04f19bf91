"""The page of a model beside its published accuracies."""

from collections.abc import Mapping, Sequence
from typing import Literal

from robustbench_twicing.report.numbers import count, percent
from robustbench_twicing.report.page import Column, Into, Judged, Line, Page, Row, Table
from robustbench_twicing.results.used import Check, Verification

_COLUMNS = (
    Column("dataset", "data set"),
    Column("answered", "n", "part"),
    Column("failed", "failed", "count"),
    Column("measured", "top-1 %", "percent2"),
    Column("published", "published", "percent2", short="publ."),
    Column("difference", "diff", "points2"),
    Column("interval", "interval", "percent2 interval", Into("measured", "\n(", ")")),
    Column("verdict", "verdict", tones={"outside": "bad", "too few to tell": "warning"}),
)


def published_page(verification: Verification, model: Line, folder: str, remarks: Sequence[str] = ()) -> Page:
    """The checks of a verification, and what could explain a miss.

    `model` says what stands behind the model's name; `remarks` are what a reader must know before the numbers.
    """
    checks = verification.checks
    failed = any(check.failed for check in checks)
    columns = tuple(column for column in _COLUMNS if failed or column.key != "failed")
    title = f"{verification.model} beside the published {verification.published_model}"
    parts: list[Line | Table] = [Line(line, "warning") for line in remarks]
    parts.append(Table("checks", title, columns, tuple(map(_row, checks))))
    parts += [Line(f"{name}: not checked, {why}", "warning") for name, why in verification.not_checked.items()]
    missed = [check for check in checks if check.verdict == "outside"]
    for check in missed if verification.tried else ():
        cause = check.cause or "none of the changes that were tried brings it inside"
        parts.append(Line(f"{check.dataset}: likeliest cause: {cause}", "strong", unbroken=True))
    if missed and verification.tried:
        parts.append(Line(f"Tried: {'; '.join(verification.tried)}."))
    parts += [Line(f"{check.dataset}: {_too_few(check)}", "warning") for check in checks if _too_wide(check)]
    parts += [
        Line(f"The rule: {verification.rule}.", "note"),
        Line(f"Images: {verification.prepared}. Published: {checks[0].conditions}.", "note"),
        model,
        Line(f"Run folder: {folder}", unbroken=True),
    ]
    facts = {"run": folder, **verification.model_dump(mode="json"), "verdict": verification.verdict, "remarks": remarks}
    return Page(title, tuple(parts), facts=facts, judged=tuple(_judged(verification.model, check) for check in checks))


_OUTCOMES: Mapping[str, Literal["passed", "failed", "unclear"]] = {
    "inside": "passed",
    "outside": "failed",
    "too few to tell": "unclear",
}


def _too_wide(check: Check) -> bool:
    return check.verdict == "too few to tell"


def _too_few(check: Check) -> str:
    low, high = percent(check.low), percent(check.high)
    n, images = count(check.n), count(check.images)
    return f"{n} images are too few to tell: of all {images}, {low} to {high} % may be right"


def _row(check: Check) -> Row:
    return {
        "dataset": check.dataset,
        "answered": (check.n, check.images),
        "failed": check.failed,
        "measured": check.measured,
        "published": check.published,
        "difference": None if check.measured is None else check.measured - check.published,
        "interval": (check.low, check.high),
        "verdict": check.verdict,
    }


def _judged(model: str, check: Check) -> Judged:
    outcome = _OUTCOMES[check.verdict]
    return Judged(model, check.dataset, check.verdict, outcome, check.cause if outcome == "failed" else "")
