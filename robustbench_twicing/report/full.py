"""The page of `report`: everything about a run, or several, and what a comparison of their models says."""

from collections.abc import Sequence
from itertools import groupby

from robustbench_twicing.report.arms import arms_page
from robustbench_twicing.report.calibration import calibration_table
from robustbench_twicing.report.compare import compare_page
from robustbench_twicing.report.drawings import calibration_curves, family_curves
from robustbench_twicing.report.gallery import gallery_parts
from robustbench_twicing.report.notes import state
from robustbench_twicing.report.numbers import interval, percent, points
from robustbench_twicing.report.page import Line, Page
from robustbench_twicing.report.provenance import provenance_table
from robustbench_twicing.report.run import (
    folder_lines,
    run_facts,
    run_lines,
    run_names,
    run_sheet,
    run_tables,
    summary_of,
)
from robustbench_twicing.report.transfer import transfer_tables
from robustbench_twicing.results.arm_comparison import ArmComparisons, ArmRow
from robustbench_twicing.results.comparison import Comparisons
from robustbench_twicing.results.comparison import Row as ModelRow
from robustbench_twicing.results.run import Run


def full_page(runs: Sequence[Run], found: Comparisons | ArmComparisons | None, refused: str = "") -> Page:
    """The verdict, tables, the models or mechanisms side by side, and where every number comes from.

    `found` is None where there is nothing to compare; `refused` then says why, unless it goes without saying.
    """
    compared = _compared(found) if found else None
    parts = (
        *run_tables(runs),
        *(transfer_tables(runs[0]) if len(runs) == 1 else ()),
        *family_curves(runs),
        calibration_table(summary_of(runs)),
        *calibration_curves(runs),
        *(compared.parts if compared else ()),
        *([Line(f"Not compared: {refused}", "warning")] if refused else []),
        *gallery_parts(runs, found),
        *run_lines(runs),
        *(provenance_table(run, called) for run, called in zip(runs, run_names(runs), strict=True)),
        *folder_lines(runs),
    )
    facts = [run_facts(run) for run in runs]
    comparison = {"comparison": compared.facts if compared else None}
    return Page(
        f"Run {runs[0].path.name}" if len(runs) == 1 else "Runs " + ", ".join(run_names(runs)),
        tuple(dict.fromkeys(parts)),  # a comparison and a run's notes may explain the same in the same words
        headline=_headline(runs, found),
        facts={**facts[0], **comparison} if len(runs) == 1 else {"runs": facts, **comparison},
        sheet=run_sheet(runs),
    )


def _compared(found: Comparisons | ArmComparisons) -> Page:
    return arms_page(found, slices=True) if isinstance(found, ArmComparisons) else compare_page(found, slices=True)


_Row = ModelRow | ArmRow


def _headline(runs: Sequence[Run], found: Comparisons | ArmComparisons | None) -> Line:
    """The verdict in a sentence for each pair; of a single model what it keeps; of a part of a run what is missing."""
    missing = {called: state(run) for run, called in zip(runs, run_names(runs), strict=True)}
    if any(missing.values()):
        said = [f"{called}: {lacks}" if called else lacks for called, lacks in missing.items() if lacks]
        return Line(" ".join(said), "warning")
    if found and found.rows:
        about = "as trained by this recipe" if isinstance(found, ArmComparisons) else "these weights"
        rows: Sequence[_Row] = found.rows
        pairs = groupby(rows, key=lambda row: (row.baseline, row.candidate))
        return Line(" ".join(_verdict(list(rows), about) for _, rows in pairs), "strong")
    return Line(_kept(runs[0]), "strong")


def _verdict(rows: Sequence[_Row], about: str) -> str:
    """What may be said of one pair, the verdict first."""
    baseline, candidate = rows[0].baseline, rows[0].candidate
    counted = [row for row in rows if row.outside is None] or list(rows)
    threats = len(counted)
    under = {word: sum(row.verdict == word for row in counted) for word in ("better", "worse")}
    (first, number), *others = [(word, number) for word, number in under.items() if number] or [("", 0)]
    if not first:
        where = f"any of {threats} threats" if threats > 1 else "the one threat"
        said = f"No difference found between {candidate} and {baseline} (baseline) under {where}"
    else:
        more = "".join(f" and {word} under {number}" for word, number in others)
        of = f" of {threats} threats" if threats > 1 else " threat, the only one"
        said = f"{candidate} is {first} than {baseline} (baseline; {about}) under {number}{more}{of}"
    return f"{said}; {_largest(counted)}."


def _largest(rows: Sequence[_Row]) -> str:
    """Where the two differ most."""
    most = max(rows, key=lambda row: abs(row.outcome.difference))
    change = most.outcome.difference
    if change == 0:
        return "not one accuracy differs"
    ends = interval(most.outcome.interval, points, " to ")
    return f"they differ most under {most.threat}: {points(change)} points ({ends})"


def _kept(run: Run) -> str:
    """Clean accuracy and the lowest one, model by model."""
    said = []
    for model, rows in run.summary[run.summary["n"] > 0].groupby("model", sort=False):
        clean, others = (rows[(rows["threat"] == "clean") == wanted] for wanted in (True, False))
        parts = [f"{percent(clean['accuracy'].iloc[0])} % clean"] if len(clean) else []
        if others["accuracy"].notna().any():
            lowest = others.iloc[int(others["accuracy"].argmin())]
            ends = interval((lowest["ci_low"], lowest["ci_high"]), percent, " - ")
            parts.append(f"{percent(lowest['accuracy'])} % ({ends}) under {lowest['threat']}, its lowest")
        said.append(f"{model}: {'; '.join(parts) or 'no accuracy'}.")
    return " ".join(said) or "Nothing was evaluated."
