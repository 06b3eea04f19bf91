"""Records cell by cell, as a report reads them: only the columns it needs, and what mostly all cells share held once.

Nineteen million records take a tenth of the memory of one table with every column. No torch.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa

from robustbench_twicing.metrics.paired import MUST_AGREE
from robustbench_twicing.spec.records import COLUMNS

Item = TypeVar("Item")
Result = TypeVar("Result")

Cells = Mapping[tuple[str, str], pd.DataFrame]
"""Records by model and threat, in the order of a run's cells. Texts may be categories."""

READ = tuple(column.name for column in COLUMNS if column.name not in ("device", "error", "l2_distance", "seconds"))
"""Columns of records that summaries, comparisons and the gate read."""

_ALIKE = {
    *("model", "architecture", "attention", "weights_hash", "training_recipe", "training_seed", "kind", "attack"),
    *("eps", "suite", "corruption", "severity", "protocol", "precision", *MUST_AGREE),
}
"""Columns with one value in all records of a cell that counts (`results.acceptance`)."""


def by_cell(records: pd.DataFrame) -> Cells:
    """The cells of a table of records."""
    groups = records.groupby(["model", "threat"], sort=False, observed=True)
    return {(str(key[0]), str(key[1])): rows for key, rows in groups}


def of_model(cells: Cells, model: str) -> dict[str, pd.DataFrame]:
    """The records of one model under each threat."""
    return {threat: rows for (name, threat), rows in cells.items() if name == model}


class Compact:
    """Makes frames of cells one after another; what the cell before had is not held twice."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = columns
        self._ids: tuple[pa.ChunkedArray, Any] | None = None
        self._labels: np.ndarray = np.zeros(0, dtype=np.int64)
        self._alike: dict[tuple[str, int], Any] = {}

    def frame(self, table: pa.Table) -> pd.DataFrame:
        """The wanted columns of a cell's records, of which there is one at least."""
        return pd.DataFrame({name: self._column(table, name) for name in self._columns}, copy=False)

    def _column(self, table: pa.Table, name: str) -> Any:
        if name == "sample_id":
            here = table[name].cast(pa.string())
            if self._ids is None or not here.equals(self._ids[0]):
                self._ids = here, pd.Series(here.to_numpy(zero_copy_only=False)).array
            return self._ids[1]
        if name == "label":
            labels = table[name].to_numpy()
            if not np.array_equal(labels, self._labels):
                self._labels = labels
            return self._labels
        if name not in _ALIKE:
            column = table[name]
            return column.to_pandas().array if pa.types.is_dictionary(column.type) else column.to_numpy()
        value, rows = table[name][0].as_py(), table.num_rows
        if not isinstance(value, str):
            return np.broadcast_to(np.int64(value), rows)
        if (value, rows) not in self._alike:  # of a run there are few, and making one takes a millisecond
            zeros = np.zeros(rows, dtype=np.int8)
            self._alike[value, rows] = pd.Categorical.from_codes(zeros, categories=pd.Index([value]), validate=False)
        return self._alike[value, rows]


def answered(rows: pd.DataFrame) -> pd.DataFrame:
    """The records with status ok; mostly that is all of them, and then these themselves."""
    ok = (rows["status"] == "ok").to_numpy(dtype=bool)
    return rows if ok.all() else rows[ok]


def same_samples(frames: Iterable[pd.DataFrame]) -> bool:
    """Whether all are about the same samples in the same order."""
    first, *others = (rows["sample_id"].array for rows in frames)
    return all(one is first or (len(one) == len(first) and bool(one.equals(first))) for one in others)


def values(frames: Sequence[pd.DataFrame], column: str) -> np.ndarray:
    """One column of several cells as one array."""
    found = [rows[column].to_numpy() for rows in frames]
    return found[0] if len(found) == 1 else np.concatenate(found)


def image_numbers(frames: Sequence[pd.DataFrame]) -> np.ndarray:
    """Which image each record of several cells is of, as a number from 0."""
    if same_samples(frames):
        return np.tile(np.arange(len(frames[0])), len(frames))
    numbers: np.ndarray = pd.factorize(pd.concat([rows["sample_id"] for rows in frames]))[0]
    return numbers


def two_at_once(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """`work` of each item, in order, two at a time: numpy and arrow let another thread compute beside theirs."""
    if len(items) < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(work, items))
