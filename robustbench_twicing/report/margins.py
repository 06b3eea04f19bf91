"""Whether a difference that matters is ruled out: one column of a comparison."""

from robustbench_twicing.report.page import Column, Into


def margin_columns(margin: float | None) -> tuple[Column, ...]:
    """The column, if a margin was chosen."""
    return () if margin is None else (Column("margin", f"{_points(margin)} points", "prose", Into("said", "\n")),)


def margin_text(not_worse: bool, not_better: bool, margin: float) -> str:
    """What two one-sided tests rule out (both: TOST, Schuirmann 1987)."""
    if not_worse and not_better:
        return f"the same within {_points(margin)}"
    if not_worse:
        return f"not worse by {_points(margin)}"
    if not_better:
        return f"not better by {_points(margin)}"
    return f"{_points(margin)} either way not ruled out"


def _points(margin: float) -> str:
    return f"{100 * margin:g}"
