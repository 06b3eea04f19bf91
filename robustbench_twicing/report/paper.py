"""The page of `report --layout paper`: the tables of the Twicing Attention paper, for whoever prints beside them."""

from collections.abc import Sequence

import pandas as pd

from robustbench_twicing.report.figures import shown
from robustbench_twicing.report.numbers import is_missing
from robustbench_twicing.report.page import Column, Line, Page, Row, Table
from robustbench_twicing.report.run import (
    folder_lines,
    run_facts,
    run_lines,
    run_sheet,
    suites_of,
    summary_of,
    threat_lines,
)
from robustbench_twicing.results.run import Run
from robustbench_twicing.spec.suite import SuiteDefinition

_FIRST = ("pgd", "fgsm", "spsa")
"""In the order of the paper's table; other attacks follow."""
_LAYOUT = (
    "Laid out as in the Twicing Attention paper (arXiv 2503.00687): top-1 and top-5 accuracy in % clean and attacked; "
    "accuracy on shifted data sets, mCE on corruptions, where there is none the mean error in %, and the mean error "
    "over the extra corruptions. No intervals stand here: report without --layout has them, and the verdict."
)


def paper_page(runs: Sequence[Run]) -> Page:
    """Models as rows; the clean run and attacks as columns of one table, suites of the other."""
    summary, facts = summary_of(runs), [run_facts(run) for run in runs]
    parts: list[Line | Table] = [*threat_lines(runs), _attacked(summary), _shifted(summary, runs)]
    parts += [Line(_LAYOUT, "note"), *run_lines(runs), *folder_lines(runs)]
    return Page(
        "Robustness, laid out as in the paper",
        tuple(parts),
        facts=facts[0] if len(runs) == 1 else {"runs": facts},
        sheet=run_sheet(runs),
    )


def _attacked(summary: pd.DataFrame) -> Table:
    here = summary[(summary["threat"] == "clean") | (summary["kind"] == "attack")]
    threats = sorted(dict.fromkeys(here["threat"]), key=_place)
    columns = [Column("model", "model")]
    for threat in threats:
        columns += [Column(threat, threat, "percent"), Column(f"{threat} top-5", "top-5", "percent", "drop")]
    rows = [
        {"model": model}
        | {row["threat"]: row["accuracy"] for _, row in own.iterrows()}
        | {f"{row['threat']} top-5": row["top5_accuracy"] for _, row in own.iterrows()}
        for model, own in here.groupby("model", sort=False)
    ]
    return Table("attacked", "Top-1 and top-5 accuracy in %", tuple(columns), tuple(rows))


def _place(threat: str) -> tuple[int, int]:
    """The clean run, then the paper's attacks, then others; within each as they are."""
    name = threat.partition("-")[0]
    return (0 if threat == "clean" else 1, _FIRST.index(name) if name in _FIRST else len(_FIRST))


def _shifted(summary: pd.DataFrame, runs: Sequence[Run]) -> Table:
    """No rows without a suite."""
    suites = {name: suite for run in runs for name, suite in run.manifest.suites.items()}
    whole, rows = suites_of(runs), list[Row]()
    for model, own in summary.groupby("model", sort=False):
        row: dict[str, object] = {}
        for suite, cells in own[own["suite"] != ""].groupby("suite", sort=False):
            row |= _of_suite(str(suite), str(model), cells, whole, suites[str(suite)])
        if row:
            rows.append({"model": model, **row})
    keys = dict.fromkeys(key for row in rows for key in row if key != "model")
    columns = (Column(key, key, "figure" if key.endswith(" mCE") else "percent") for key in keys)
    return Table("in the paper", "Shifted and corrupted data", (Column("model", "model"), *columns), tuple(rows))


def _of_suite(
    suite: str, model: str, cells: pd.DataFrame, whole: pd.DataFrame, definition: SuiteDefinition
) -> dict[str, object]:
    """By column."""
    if not (cells["kind"] == "corruption").any():
        return {suite: cells["accuracy"].iloc[0]}
    found: dict[str, object] = {}
    of_model = whole[(whole["suite"] == suite) & (whole["model"] == model)]
    if len(of_model):
        mce = of_model["mce"].iloc[0]
        error = of_model["mean_error"].iloc[0]
        if not is_missing(mce):
            found = {f"{suite} mCE": shown(mce, 1, "%")}
        elif not is_missing(error):
            found = {f"{suite} mean error": error}
    extra = cells[cells["corruption"].isin(definition.spec.extra)]
    if definition.spec.extra and len(extra) == len(definition.spec.extra) * len(definition.spec.severities):
        found[f"{suite} extra, mean error"] = 1 - extra["accuracy"].mean()
    return found
