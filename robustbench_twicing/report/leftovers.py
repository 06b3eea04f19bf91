"""The pages of what the run folders hold, and of what was removed."""

from collections.abc import Sequence
from pathlib import Path

from robustbench_twicing.report.numbers import size
from robustbench_twicing.report.page import Column, Line, Page, Row, Table
from robustbench_twicing.results.leftovers import Holding

_COLUMNS = (
    Column("run", "run"),
    Column("status", "status"),
    Column("shards", "shards", "count"),
    Column("size", "size", "bytes"),
    Column("stray_files", "stray files", "count"),
    Column("stray_size", "stray size", "bytes"),
)


def holdings_page(holdings: Sequence[Holding], runs: Path) -> Page:
    """What each run under `runs` holds, and what of it no manifest names any more."""
    parts: list[Line | Table] = [Table("runs", f"Runs in {runs}", _COLUMNS, tuple(map(_row, holdings)))]
    total = sum(holding.stray_size for holding in holdings)
    if not holdings:
        parts.append(Line(f"There is no run in {runs}."))
    if total:
        parts.append(Line(f"Stray: named by no manifest. `twicing-bench cache --prune` frees {size(total)}."))
    return Page(f"Runs in {runs}", tuple(parts), facts={"runs": [_facts(holding) for holding in holdings]})


def pruned_page(pruned: Sequence[Holding], left_alone: Sequence[str], runs: Sequence[Holding] = ()) -> Page:
    """What stray files and what whole `runs` were removed, and what was left alone and why."""
    lines = [Line(f"{run.folder}: removed, {size(run.size + run.stray_size)}", unbroken=True) for run in runs]
    lines += [
        Line(f"{holding.folder}: removed {len(holding.stray)} file(s), {size(holding.stray_size)}", unbroken=True)
        for holding in pruned
    ]
    lines += [Line(f"Left alone: {why}", "warning") for why in left_alone]
    facts = {
        "runs": list(map(_facts, runs)),
        "removed": [_facts(holding) for holding in pruned],
        "left_alone": list(left_alone),
    }
    return Page("What was removed", tuple(lines or [Line("Nothing to remove.")]), facts=facts)


def _row(holding: Holding) -> Row:
    row = {"run": holding.folder.name, "status": holding.status, "shards": holding.shards, "size": holding.size}
    return row | ({"stray_files": len(holding.stray), "stray_size": holding.stray_size} if holding.stray else {})


def _facts(holding: Holding) -> Row:
    return {
        "run": holding.folder.name,
        "status": holding.status,
        "shards": holding.shards,
        "size": holding.size,
        "stray": list(holding.stray),
        "stray_size": holding.stray_size,
    }
