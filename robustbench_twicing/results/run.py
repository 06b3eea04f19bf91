"""A run, read: its manifest, the records that count, and every figure made from them again. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from robustbench_twicing.catalog.plugged_metrics import add_plugged_metrics
from robustbench_twicing.errors import UserError
from robustbench_twicing.results.acceptance import Lack, accepted_cells, accepted_records, refuse_lacking
from robustbench_twicing.results.cells import READ, Cells, Compact, of_model
from robustbench_twicing.results.elsewhere import here
from robustbench_twicing.results.manifest import Manifest
from robustbench_twicing.results.of_task import tables_of
from robustbench_twicing.results.scored_text import refuse_text
from robustbench_twicing.results.side import Side
from robustbench_twicing.results.store import RunFolder
from robustbench_twicing.results.viewed import Viewed


@dataclass(frozen=True, eq=False, repr=False)
class Run(Viewed):
    """A run folder, read."""

    path: Path
    manifest: Manifest
    cells: Cells
    """Of each model and threat the records that count, with the columns `results.cells.READ`."""
    remarks: tuple[str, ...] = ()
    """What a user should know: damaged, taken over or continued shards, metrics of packages that cannot be had."""
    lacking: tuple[Lack, ...] = field(default=())
    """What the manifest promises and `cells` lacks: shards that are missing or do not count, or still to be done."""

    _read_in: Path = field(default_factory=Path.cwd)
    """The working folder, to which `path` may be relative."""

    def __repr__(self) -> str:
        models, threats = len(self.manifest.plan.models), len(self.manifest.plan.threats)
        return f"Run({str(self.path)!r}: {self.manifest.status}, {models} model(s) × {threats} threat(s))"

    @cached_property
    def records(self) -> pd.DataFrame:
        """One row per (model, threat, sample) that counts; columns in docs/records.md. Read when it is first asked for:
        all columns of many records are large. Raises `UserError` if the folder has changed since the run was read.
        """
        found = accepted_records(RunFolder(self._read_in / self.path), self.manifest)
        if len(found.records) != sum(map(len, self.cells.values())):
            raise UserError(f"{self.path} is not what it was when it was read.", "Read it again: load_run(FOLDER).")
        return found.records

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row per (model, threat), of a text also per choice of targets, computed from the records."""
        return tables_of(self.manifest).summary(self.cells, self.manifest)

    @cached_property
    def suites(self) -> pd.DataFrame:
        """One row per (model, suite): the figures over a whole suite; columns in docs/records.md."""
        return tables_of(self.manifest).suites(self.cells, self.manifest)

    @property
    def is_whole(self) -> bool:
        """Finished, and with every record that it should have."""
        return self.manifest.status == "finished" and not self.lacking

    @property
    def elsewhere(self) -> bool:
        """It was made of another tool's predictions."""
        return self.manifest.origin == "predictions"

    @property
    def models(self) -> list[str]:
        """The models' names, in the plan's order."""
        return [model.name for model in self.manifest.plan.models]

    def side(self, model: str, name: str = "") -> Side:
        """One model as a side of a comparison, under another name if one is given."""
        refuse_text(self.manifest.plan.task, "A comparison of accuracies")
        threats = {threat.id: threat for threat in self.manifest.plan.threats}
        return Side(name or model, of_model(self.cells, model), self.manifest.suites, threats, self.elsewhere)

    def compare(self, *models: str, alpha: float = 0.05, margin: float | None = None) -> Any:
        """`results.comparison.Comparisons` of its models, or of those that are named: as `api.compare(…, run=RUN)`."""
        from robustbench_twicing.results.comparison import compare_sides  # both read runs, so they stand above
        from robustbench_twicing.results.sides import sides_of

        return compare_sides(sides_of(models, self.path), alpha, margin=margin)

    def gate(self, baseline: str | Path) -> Any:
        """`results.gate.GateResult`: this run judged against an accepted baseline, its name or folder."""
        from robustbench_twicing.results.baselines import load_baseline
        from robustbench_twicing.results.gate import check_run

        return check_run(load_finished(self.path), load_baseline(Path(baseline)))


def load_run(path: str | Path) -> Run:
    """Read a run folder. Nothing in it is changed.

    What does not count (`results.acceptance`) is in `lacking`. Raises `UserError` if it is no run folder.
    """
    folder = RunFolder(here(path))
    manifest = folder.manifest()
    cells, lacking = read_cells(folder, manifest)
    refused = add_plugged_metrics()
    return Run(folder.path, manifest, cells, remarks=tuple(refused), lacking=lacking)


def read_cells(folder: RunFolder, manifest: Manifest, columns: Sequence[str] = READ) -> tuple[Cells, tuple[Lack, ...]]:
    """Some columns of the records that count, cell by cell, and what is lacking."""
    of_text = manifest.plan.task == "text"
    compact, lacking, cells = Compact(columns), list[Lack](), dict[tuple[str, str], pd.DataFrame]()
    for entry, tables, lacks in accepted_cells(folder, manifest):
        lacking += lacks
        if tables:
            rows = pa.concat_tables(tables)
            # Records of a text are few: a row for each document.
            cells[entry.model, entry.threat] = rows.to_pandas() if of_text else compact.frame(rows)
    return cells, tuple(lacking)


def load_finished(path: str | Path) -> Run:
    """A run that went to its end, with every record that its manifest promises. Raises `UserError` for any other."""
    run = load_run(path)
    _refuse_unfinished(run.path, run.manifest)
    refuse_lacking(f"The run in {run.path}", run.lacking, _AGAIN)
    return run


_AGAIN = "The command that made it, given again, computes them again."


def _refuse_unfinished(path: Path, manifest: Manifest) -> None:
    if manifest.status != "finished":
        raise UserError(f"The run in {path} is not finished.", "The command that began it, given again, continues it.")


def load_cells(path: str | Path, columns: Sequence[str]) -> tuple[Manifest, Cells]:
    """Some columns of a finished run's records, by model and threat. Raises `UserError` as `load_finished`."""
    folder = RunFolder(here(path))
    manifest = folder.manifest()
    _refuse_unfinished(folder.path, manifest)
    refuse_text(manifest.plan.task, "A comparison of arms by images")
    cells, lacking = read_cells(folder, manifest, columns)
    refuse_lacking(f"The run in {folder.path}", lacking, _AGAIN)
    add_plugged_metrics()
    return manifest, cells
