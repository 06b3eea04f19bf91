"""The pages of a bundle: what was written, and whether its numbers follow from its records."""

from robustbench_twicing.report.notes import ELSEWHERE
from robustbench_twicing.report.numbers import count, size
from robustbench_twicing.report.page import Column, Judged, Line, Page, Table
from robustbench_twicing.results.bundle import Bundled
from robustbench_twicing.results.verified import Verified

_SHOWN = 50
"""Contradictions, named one by one."""


def bundled_page(made: Bundled) -> Page:
    """Where it lies, how large it is, and which names are still in it."""
    named = [
        Line(f"Names of this machine are left in {place}, on which numbers depend.", "warning")
        for place in made.still_named
    ]
    where = Line(f"Wrote {made.path} ({count(made.files)} files, {size(made.size)})", unbroken=True)
    facts = {"bundle": made.path, "files": made.files, "bytes": made.size, "still_named": made.still_named}
    return Page("A bundle", (*named, where), facts=facts)


def verified_page(found: Verified) -> Page:
    """What was computed again, and everything that does not follow."""
    wrong = found.contradictions
    columns = (
        Column("file", "file"),
        Column("row", "row"),
        Column("column", "column"),
        Column("claimed", "claimed"),
        Column("follows", "follows from the records"),
    )
    rows = tuple(one._asdict() for one in wrong[:_SHOWN])
    parts: list[Line | Table] = [Table("contradictions", "What does not follow", columns, rows, groups=("file", "row"))]
    if len(wrong) > _SHOWN:
        parts.append(Line(f"And {count(len(wrong) - _SHOWN)} more; --json has all of them.", "note"))
    if found.unknown:
        parts.append(Line(f"Not computed, as no metric here is called so: {', '.join(found.unknown)}.", "warning"))
    of = f"{count(found.values)} values from {count(found.records)} records"
    if found.images:
        of += f", and {count(found.images)} images,"
    said = "follow" if not wrong else f"were computed again, and {count(len(wrong))} do not follow"
    headline = Line(f"{found.path}: {of} {said}.", "bad" if wrong else "warning" if found.unknown else "good")
    if found.manifest.origin == "predictions":
        parts.append(Line(ELSEWHERE, "warning"))
    facts = {
        "bundle": found.path,
        "plan_hash": found.manifest.plan_hash,
        "records": found.records,
        "values": found.values,
        "images": found.images,
        "contradictions": [one._asdict() for one in wrong],
        "unknown": found.unknown,
    }
    judged = Judged(
        str(found.path), "verify", said, "failed" if wrong else "unclear" if found.unknown else "passed", of
    )
    return Page(f"The evidence in {found.path.name}", tuple(parts), headline=headline, facts=facts, judged=(judged,))
