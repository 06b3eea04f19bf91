"""The history: an index that can always be made again from the run folders."""

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from robustbench_twicing.errors import UserError
from robustbench_twicing.results.history import add, rebuild, series
from robustbench_twicing.results.run import Run, load_run
from tests.records_builder import records, run_folder


def _night(place: Path, date: str, right: int, n: int = 100, **manifest: Any) -> Run:
    frame = records({("deit", "clean"): np.arange(n) < right}, weights_hash=f"1e{date[-2:]}")
    settings = {"name": "nightly", "started": f"{date}T02:00:00+00:00", **manifest}
    return load_run(run_folder(place / "runs" / f"nightly-{date}", frame, **settings))


def _accuracies(index: Path, **only: Any) -> list[list[float | None]]:
    return [[point.accuracy for point in line.points] for line in series(index, **only)]


def test_a_night_is_added_and_adding_it_again_changes_nothing(tmp_path: Path) -> None:
    index = tmp_path / "history.sqlite"
    for date, right in (("2026-11-21", 90), ("2026-11-22", 91), ("2026-11-22", 92)):
        assert add(_night(tmp_path, date, right), index) == ""
    (line,) = series(index)
    assert [point.accuracy for point in line.points] == [0.90, 0.92]
    assert (line.model, line.threat, line.data, line.samples) == ("deit", "clean", "digits", 100)
    # A hash of digits and an e is not a number.
    assert [point.weights_hash for point in line.points] == ["1e21", "1e22"]
    assert line.points[-1].interval[0] < 0.92 < line.points[-1].interval[1]


def test_nights_are_in_the_order_of_the_clock_even_if_it_jumped(tmp_path: Path) -> None:
    """A run that began in the future, or ended before it began, is shown at the time that its manifest says."""
    index = tmp_path / "history.sqlite"
    add(_night(tmp_path, "2031-01-01", 93), index)
    add(_night(tmp_path, "2026-11-22", 92, finished="1999-01-01T00:00:00+00:00"), index)
    assert _accuracies(index) == [[0.92, 0.93]]


@pytest.mark.parametrize("harm", ["lost", "garbage", "another version"])
def test_an_index_that_cannot_be_used_is_made_again_from_the_folders(tmp_path: Path, harm: str) -> None:
    index = tmp_path / "history.sqlite"
    for date, right in (("2026-11-21", 90), ("2026-11-22", 91)):
        add(_night(tmp_path, date, right), index)
    if harm == "lost":
        index.unlink()
    elif harm == "garbage":
        index.write_bytes(b"not a database at all" * 100)
    else:
        with sqlite3.connect(index) as database:
            database.execute("PRAGMA user_version = 99")
        database.close()
    assert _accuracies(index) == [[0.90, 0.91]]
    assert add(_night(tmp_path, "2026-11-23", 92), index) == ""
    assert _accuracies(index) == [[0.90, 0.91, 0.92]]


def test_rebuilding_gives_the_same_and_names_what_it_leaves_out(tmp_path: Path) -> None:
    index = tmp_path / "history.sqlite"
    for date, right in (("2026-11-21", 90), ("2026-11-22", 91)):
        add(_night(tmp_path, date, right), index)
    before = series(index)
    _night(tmp_path, "2026-11-23", 50, status="running")
    (tmp_path / "runs" / "notes").mkdir()
    for file in tmp_path.glob("runs/*/summary.csv"):  # which a hand may have edited; the records count
        pd.read_csv(file).assign(accuracy=0.5, right=1).to_csv(file, index=False)
    count, left_out = rebuild(index)
    assert series(index) == before
    assert count == 2
    assert len(left_out) == 2
    assert "not finished" in left_out[0]
    assert "not a run folder" in left_out[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history.sqlite", "runs"]


def test_runs_that_were_not_run_alike_are_different_series(tmp_path: Path) -> None:
    index = tmp_path / "history.sqlite"
    add(_night(tmp_path, "2026-11-21", 90), index)
    add(_night(tmp_path, "2026-11-22", 19, n=20), index)
    assert _accuracies(index) == [[0.90], [0.95]]


def test_filters_choose_plan_model_threat_and_the_newest_nights(tmp_path: Path) -> None:
    index = tmp_path / "history.sqlite"
    for date, right in (("2026-11-21", 90), ("2026-11-22", 91), ("2026-11-23", 92)):
        add(_night(tmp_path, date, right), index)
    assert _accuracies(index, last=2) == [[0.91, 0.92]]
    assert _accuracies(index, names=["nightly"], models=["deit"], threats=["clean"]) == [[0.90, 0.91, 0.92]]
    assert _accuracies(index, names=["weekly"]) == _accuracies(index, models=["x"]) == []


def test_a_run_elsewhere_is_not_in_the_history(tmp_path: Path) -> None:
    index = tmp_path / "here" / "history.sqlite"
    assert add(_night(tmp_path / "there", "2026-11-21", 90), index) == ""
    assert not index.exists()


def test_a_run_is_not_lost_because_its_index_cannot_be_written(tmp_path: Path) -> None:
    run = _night(tmp_path, "2026-11-21", 90)
    (tmp_path / "history.sqlite").mkdir()
    said = add(run, tmp_path / "history.sqlite")
    assert "The run is whole" in said
    assert "history --rebuild" in said


def test_a_folder_in_the_place_of_the_index_is_explained(tmp_path: Path) -> None:
    (tmp_path / "history.sqlite").mkdir()
    with pytest.raises(UserError, match=r"history\.sqlite cannot be read"):
        series(tmp_path / "history.sqlite")


def test_a_threat_without_any_answer_is_a_gap(tmp_path: Path) -> None:
    frame = records({("deit", "clean"): np.zeros(10, dtype=bool)}, status="failed")
    run = load_run(run_folder(tmp_path / "runs" / "x", frame))
    assert add(run, tmp_path / "history.sqlite") == ""
    assert _accuracies(tmp_path / "history.sqlite", ad_hoc=True) == [[None]]


def test_runs_that_no_plan_began_are_no_nights_of_one_that_measures_the_same(tmp_path: Path) -> None:
    index = tmp_path / "history.sqlite"
    for date, name in (("2026-11-21", "nightly"), ("2026-11-22", ""), ("2026-11-23", "nightly"), ("2026-11-24", "own")):
        add(_night(tmp_path, date, 90, name=name), index)
    found = {line.plan: [point.started[:10] for point in line.points] for line in series(index)}
    assert found == {"nightly": ["2026-11-21", "2026-11-23"], "own": ["2026-11-24"]}
    assert [line.plan for line in series(index, ad_hoc=True)] == ["nightly", "", "own"]
