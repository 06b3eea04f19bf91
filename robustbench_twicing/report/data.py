"""The pages of a data set on disk: is it whole, and do computed corruptions score as the published files do."""

from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from robustbench_twicing.report.marks import Tone
from robustbench_twicing.report.page import Column, Into, Judged, Line, Page, Row, Table

if TYPE_CHECKING:  # reading images needs torch
    from robustbench_twicing.data.check import Report

_COUNTS = (
    Column("part", "part"),
    Column("classes", "classes", "count"),
    Column("expected_classes", "expected", "count"),
    Column("images", "images", "count"),
    Column("expected_images", "expected", "count"),
)
_DIFFERENCES = (
    Column("part", "corruption"),
    Column("model", "model"),
    Column("n", "n", "count"),
    Column("official", "official %", "percent", short="official → generated"),
    Column("generated", "generated %", "percent", Into("official", " → ")),
    Column("difference", "difference", "points", short="diff."),
    Column("interval", "95 % interval", "points interval"),
)


def check_page(report: "Report") -> Page:
    """Classes and images that are there beside those expected, and every finding."""
    title = f"{report.suite} in {report.directory}"
    parts: list[Line | Table] = [Table("rows", title, _COUNTS, tuple(vars(row) for row in report.rows))]
    for finding in report.findings:
        tone: Tone = "bad" if finding.severity == "error" else "warning"
        parts.append(Line(f"{finding.severity}: {finding.where}: {finding.message}", tone))
    whole = report.ok and not report.findings
    parts.append(Line("Nothing wrong." if whole else f"{len(report.findings)} finding(s)."))
    facts = {
        "ok": report.ok,
        "rows": [vars(row) for row in report.rows],
        "findings": [vars(finding) for finding in report.findings],
    }
    wrong = "; ".join(finding.message for finding in report.errors)
    verdict: tuple[str, Literal["passed", "failed"]] = ("ok", "passed") if report.ok else ("error", "failed")
    judged = Judged(report.suite, report.directory, *verdict, wrong)
    return Page(title, tuple(parts), facts=facts, judged=(judged,))


def differences_page(rows: pd.DataFrame, folder: str) -> Page:
    """Accuracy on the official and the generated ImageNet-C: `rows` as of `summary.generated_differences`."""
    facts: list[dict[str, Any]] = [{str(key): value for key, value in row.items()} for row in rows.to_dict("records")]
    shown = tuple(map(_difference, facts))
    title = "ImageNet-C: top-1 accuracy in %, difference in points"
    table = Table("rows", title, _DIFFERENCES, shown)
    return Page(title, (table, Line(f"Run folder: {folder}", unbroken=True)), facts=facts)


def _difference(row: Row) -> Row:
    return {**row, "part": f"{row['corruption']} {row['severity']}", "interval": (row["low"], row["high"])}
