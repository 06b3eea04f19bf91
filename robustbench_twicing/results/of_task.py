"""What is made of records, by the task that they are of. No torch."""

from collections.abc import Callable
from typing import NamedTuple

import pandas as pd

from robustbench_twicing.results.cells import Cells
from robustbench_twicing.results.manifest import Manifest
from robustbench_twicing.results.scored_text import summarize_text
from robustbench_twicing.results.suite_figures import summarize_suites
from robustbench_twicing.results.summary import summarize


class Tables(NamedTuple):
    """How records become the tables of a run folder and of a bundle."""

    summary: Callable[[Cells, Manifest], pd.DataFrame]
    keys: tuple[str, ...]
    """Columns that name a row of the summary."""
    suites: Callable[[Cells, Manifest], pd.DataFrame]


TABLES: dict[str, Tables] = {
    "images": Tables(
        lambda cells, manifest: summarize(cells, manifest.suites, manifest.lacks),
        ("model", "threat"),
        lambda cells, manifest: summarize_suites(cells, manifest.suites, manifest.lacks),
    ),
    "text": Tables(
        lambda cells, _: summarize_text(cells.values()),
        ("model", "threat", "targets"),
        lambda _, manifest: summarize_suites({}, {}, manifest.lacks),  # no figure is over a whole suite of texts
    ),
}


def tables_of(manifest: Manifest) -> Tables:
    """Of a run."""
    return TABLES[manifest.plan.task]
