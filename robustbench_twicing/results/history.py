"""Accuracy by night: an index of the runs under results/runs/, in results/history.sqlite. No torch.

The index holds nothing that the run folders do not: it is made from each finished run's run.json and records, and
made again by `rebuild` if it is lost, damaged or of another version.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustbench_twicing.errors import UserError, shown
from robustbench_twicing.results.run import Run, load_finished
from robustbench_twicing.results.store import RUNS, explained, unfinished

INDEX = RUNS.parent / "history.sqlite"

_VERSION = 2
_PATIENCE_SECONDS = 30  # for another process that is writing to the index
_SCHEMA = f"""
CREATE TABLE runs (
    folder TEXT PRIMARY KEY, name TEXT NOT NULL, plan_hash TEXT NOT NULL, started TEXT NOT NULL,
    version TEXT NOT NULL, "commit" TEXT NOT NULL, elsewhere INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE cells (
    folder TEXT NOT NULL REFERENCES runs ON DELETE CASCADE, position INTEGER NOT NULL, model TEXT NOT NULL,
    threat TEXT NOT NULL, data TEXT NOT NULL, recipe TEXT NOT NULL, protocol_hash TEXT NOT NULL, seed INTEGER NOT NULL,
    weights_hash TEXT NOT NULL, n INTEGER NOT NULL, failed INTEGER NOT NULL, accuracy REAL, ci_low REAL, ci_high REAL,
    PRIMARY KEY (folder, position)
) WITHOUT ROWID;
PRAGMA user_version = {_VERSION};
"""
_CELL = ("model", "threat", "data", "recipe", "protocol_hash", "seed", "weights_hash", "n", "failed", "accuracy",
         "ci_low", "ci_high")  # fmt: skip


@dataclass(frozen=True)
class Point:
    """One night of a series."""

    folder: str
    started: str
    """UTC, ISO 8601, from the clock of the machine that ran it."""
    weights_hash: str
    version: str
    commit: str
    accuracy: float | None
    """None if no sample was answered."""
    interval: tuple[float, float] | None
    """95 %, Wilson; None where no answer can be right, as in ImageNet-O."""
    failed: int
    elsewhere: bool = False
    """Another tool's predictions."""


@dataclass(frozen=True)
class Series:
    """One model under one threat over the nights, oldest first. All points were run alike, on as many samples."""

    model: str
    threat: str
    data: str
    samples: int
    points: tuple[Point, ...]
    plan: str = ""
    """The name that the plans of all runs have; empty for runs without one."""


def add(run: Run, index: Path = INDEX) -> str:
    """Put a finished run into the index, in place of what it says about this folder. Runs elsewhere are left out.

    Returns what to tell the user if that could not be done, else nothing: a run is worth more than its index. An index
    that is lost, damaged or of another version is made anew.
    """
    if run.path.resolve().parent != _runs(index).resolve() or run.manifest.plan.task != "images":
        return ""
    try:
        if not _usable(index):
            rebuild(index)
        with _opened(index) as database:
            _insert(database, run)
    except (sqlite3.Error, UserError) as error:
        return f"The run is whole, but {index} could not be written ({error}). Later: twicing-bench history --rebuild"
    return ""


def rebuild(index: Path = INDEX) -> tuple[int, list[str]]:
    """Make the index anew from the run folders beside it: how many runs it holds, and what was left out and why."""
    count, left_out = 0, []
    with explained(index):
        index.parent.mkdir(parents=True, exist_ok=True)
        temporary = unfinished(index)
        try:
            with _opened(temporary) as database:
                database.executescript(_SCHEMA)
                for path in sorted(path for path in _runs(index).glob("*") if path.is_dir()):
                    try:
                        run = load_finished(path)
                        if run.manifest.plan.task == "images":  # the history is one of accuracies
                            _insert(database, run)
                            count += 1
                    except UserError as error:
                        left_out.append(error.message)
            temporary.replace(index)
        finally:
            temporary.unlink(missing_ok=True)
    return count, left_out


def series(
    index: Path = INDEX,
    *,
    names: Sequence[str] = (),
    models: Sequence[str] = (),
    threats: Sequence[str] = (),
    last: int | None = None,
    ad_hoc: bool = False,
) -> list[Series]:
    """Every series, of these plan names, models and threats if any are given; the `last` nights of each.

    Runs belong to one series if the plan's name, model, threat, data set, recipe, settings, seed and number of samples
    are the same. Runs that no plan file began are series of their own, and only looked at if `ad_hoc`. Raises
    `UserError` if the index cannot be read.
    """
    if not _usable(index):
        rebuild(index)
    wanted = {"runs.name": names, "cells.model": models, "cells.threat": threats}
    conditions = [f"{column} IN ({', '.join('?' * len(some))})" for column, some in wanted.items() if some]
    where = " AND ".join([*conditions, *([] if ad_hoc else ["runs.name != ''"])])
    try:
        with _opened(index) as database:
            rows = database.execute(
                f"""SELECT runs.folder, runs.name, started, version, "commit", elsewhere, {", ".join(_CELL)}
                FROM cells JOIN runs USING (folder)
                WHERE {where or "TRUE"} ORDER BY started, runs.folder, position""",
                [shown(value) for some in wanted.values() for value in some],
            ).fetchall()
    except sqlite3.DatabaseError as error:
        raise UserError(f"{index} cannot be read: {error}.", "Run: twicing-bench history --rebuild") from None
    found: dict[tuple[Any, ...], list[Point]] = {}
    for folder, name, started, version, commit, elsewhere, *cell in rows:
        (model, threat, data, recipe, protocol, seed, weights, n, failed, accuracy, low, high) = cell
        key = (model, threat, data, n + failed, name, recipe, protocol, seed)
        ends = None if low is None else (low, high)
        point = Point(folder, started, weights, version, commit, accuracy, ends, failed, bool(elsewhere))
        found.setdefault(key, []).append(point)
    return [
        Series(model, threat, data, samples, tuple(points[-last if last else 0 :]), name)
        for (model, threat, data, samples, name, *_), points in found.items()
    ]


def forget(folders: Iterable[Path], index: Path = INDEX) -> None:
    """Leave out of the index what it says about runs that were removed."""
    if index.exists() and _usable(index):
        with _opened(index) as database, database:
            database.executemany("DELETE FROM runs WHERE folder = ?", [[folder.name] for folder in folders])


def _insert(database: sqlite3.Connection, run: Run) -> None:
    cells, manifest, name = run.summary[list(_CELL)], run.manifest, run.path.name
    cells = cells.astype(object).where(cells.notna(), None)
    with database:
        database.execute("DELETE FROM runs WHERE folder = ?", [name])
        database.execute(
            "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                name,
                manifest.name,
                manifest.plan_hash,
                manifest.started,
                manifest.versions.get("twicing-bench", ""),
                manifest.git.commit if manifest.git else "",
                run.elsewhere,
            ],
        )
        database.executemany(
            f"INSERT INTO cells VALUES (?, ?{', ?' * len(_CELL)})",
            [[name, position, *row] for position, row in enumerate(cells.to_numpy().tolist())],
        )


def _usable(index: Path) -> bool:
    """False if the index is lost, was made by another version, or is no database."""
    if not index.exists():
        return False
    try:
        with _opened(index) as database:
            return bool(database.execute("PRAGMA user_version").fetchone()[0] == _VERSION)
    except sqlite3.OperationalError:  # busy or unreadable: whoever uses it next says so
        return True
    except sqlite3.DatabaseError:
        return False


@contextmanager
def _opened(index: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(index, timeout=_PATIENCE_SECONDS)) as database:
        database.execute("PRAGMA foreign_keys = ON")
        yield database


def _runs(index: Path) -> Path:
    return index.parent / RUNS.name
