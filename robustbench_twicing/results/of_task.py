"""What is made of records, by the task that they are of. No torch."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import pandas as pd

from robustbench_twicing.metrics.paired import MUST_AGREE
from robustbench_twicing.results.cells import Cells
from robustbench_twicing.results.gate_cells import Cell, CellResult, judge
from robustbench_twicing.results.gate_text import judge_texts
from robustbench_twicing.results.manifest import Manifest
from robustbench_twicing.results.scored_text import summarize_text
from robustbench_twicing.results.suite_figures import summarize_suites
from robustbench_twicing.results.summary import summarize
from robustbench_twicing.spec.policy import Policy
from robustbench_twicing.spec.records import COLUMNS, TEXT_COLUMNS


class Tables(NamedTuple):
    """How records become the tables of a run folder and of a bundle."""

    summary: Callable[[Cells, Manifest], pd.DataFrame]
    keys: tuple[str, ...]
    """Columns that name a row of the summary."""
    suites: Callable[[Cells, Manifest], pd.DataFrame]
    judge: Callable[[Sequence[Cell], Policy], list[CellResult]]
    """What the gate says of its cells."""
    kept: tuple[str, ...]
    """Columns of records that a baseline holds."""


_OF_IMAGES = (
    *("model", "attention", "weights_hash", "kind", "attack", "eps", "suite", "corruption", "severity"),
    *MUST_AGREE,
    *("sample_id", "label", "status", "prediction", "correct"),
)

TABLES: dict[str, Tables] = {
    "images": Tables(
        lambda cells, manifest: summarize(cells, manifest.suites, manifest.lacks),
        ("model", "threat"),
        lambda cells, manifest: summarize_suites(cells, manifest.suites, manifest.lacks),
        judge,
        tuple(column.name for column in COLUMNS if column.name in _OF_IMAGES),
    ),
    "text": Tables(
        lambda cells, _: summarize_text(cells.values()),
        ("model", "threat", "targets"),
        lambda _, manifest: summarize_suites({}, {}, manifest.lacks),  # no figure is over a whole suite of texts
        judge_texts,
        tuple(column.name for column in TEXT_COLUMNS if column.name != "seconds"),
    ),
}


def tables_of(manifest: Manifest) -> Tables:
    """Of a run."""
    return TABLES[manifest.plan.task]
