"""What the run folders hold: what the manifest names stays, everything stray can go."""

from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from typer.testing import CliRunner

from robustbench_twicing.cli.app import app
from robustbench_twicing.results.history import add, series
from robustbench_twicing.results.leftovers import prune, survey, thin_out
from robustbench_twicing.results.manifest import Shard
from robustbench_twicing.results.run import load_finished, load_run
from robustbench_twicing.results.store import RUNS, RunFolder
from tests.records_builder import cell, records, run_folder

RIGHT = np.ones(20, dtype=bool)
FRAME = records({("deit", "clean"): RIGHT, ("deit", "fgsm-linf-1/255"): RIGHT})


def _run(runs: Path, name: str = "one") -> RunFolder:
    """A run with a shard of older weights, one of another limit, a damaged one and a piece of interrupted writing."""
    folder = RunFolder(run_folder(runs / name, FRAME))
    named = next(folder.manifest().shards)
    folder.write_shard(Shard("deit.clean.oldweights00", 0, 20), cell("deit", "clean", RIGHT))
    folder.write_shard(Shard(named.cell, 0, 5), cell("deit", "clean", RIGHT[:5]))
    (folder.path / "records" / named.cell / "0000000-0000020-00.damaged").write_bytes(b"x" * 100)
    (folder.path / "records" / named.cell / ".abc.part").write_bytes(b"half")
    return folder


def test_a_survey_tells_named_from_stray_and_changes_nothing(tmp_path: Path) -> None:
    folder = _run(tmp_path)
    before = sorted(folder.path.rglob("*"))
    (holding,) = survey(tmp_path)
    assert (holding.status, holding.shards, len(holding.stray)) == ("finished", 2, 4)
    assert holding.stray_size == sum(file.stat().st_size for file in holding.stray)
    assert sorted(folder.path.rglob("*")) == before


def test_pruning_removes_the_stray_and_keeps_the_run_whole(tmp_path: Path) -> None:
    folder = _run(tmp_path)
    (folder.path / "notes.txt").write_text("mine")
    pruned, left_alone = prune(tmp_path)
    assert [len(holding.stray) for holding in pruned] == [4]
    assert left_alone == []
    assert survey(tmp_path)[0].stray == ()
    assert not (folder.path / "records" / "deit.clean.oldweights00").exists()
    assert len(load_finished(folder.path).records) == 40
    assert (folder.path / "notes.txt").exists()
    assert prune(tmp_path) == ([], [])


def test_a_run_that_is_being_written_is_left_alone(tmp_path: Path) -> None:
    folder = _run(tmp_path)
    with FileLock(folder.path / ".lock"):
        pruned, left_alone = prune(tmp_path)
    assert pruned == []
    assert "Another process" in left_alone[0]
    assert len(survey(tmp_path)[0].stray) == 4


def test_a_folder_whose_manifest_cannot_be_read_loses_nothing(tmp_path: Path) -> None:
    folder = _run(tmp_path)
    (folder.path / "run.json").write_text("{")
    before = sorted(folder.path.rglob("*"))
    assert survey(tmp_path)[0].status == "unreadable"
    assert prune(tmp_path) == ([], [])
    assert sorted(folder.path.rglob("*")) == before


def test_no_runs_are_no_mistake(tmp_path: Path) -> None:
    assert survey(tmp_path / "nothing") == []
    assert prune(tmp_path / "nothing") == ([], [])


def _nights(runs: Path, name: str, *days: int) -> list[Path]:
    dates = [f"2026-11-{day:02}T02:00:00+00:00" for day in days]
    return [run_folder(runs / f"{name}-{date[8:10]}", FRAME, name=name, started=date) for date in dates]


def test_thinning_out_keeps_the_newest_runs_of_each_plan(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for path in [*_nights(runs, "nightly", 3, 1, 2), *_nights(runs, "weekly", 1), *_nights(runs, "", 5, 6, 7)]:
        assert add(load_run(path), tmp_path / "history.sqlite") == ""
    (runs / "nightly-01" / "notes.txt").write_text("mine")
    (runs / "broken").mkdir()
    (runs / "broken" / "run.json").write_text("{")
    removed, left_alone = thin_out(2, runs)
    assert sorted(holding.folder.name for holding in removed) == ["-05", "nightly-01"]
    assert left_alone == []
    assert {path.name for path in runs.iterdir()} == {
        *("-06", "-07", "broken", "nightly-01", "nightly-02", "nightly-03", "weekly-01")
    }
    assert [path.name for path in (runs / "nightly-01").iterdir()] == ["notes.txt"]
    assert len(load_finished(runs / "nightly-02").records) == 40
    nights = {point.folder for line in series(tmp_path / "history.sqlite", ad_hoc=True) for point in line.points}
    assert nights == {"-06", "-07", "nightly-02", "nightly-03", "weekly-01"}
    assert thin_out(2, runs) == ([], [])


def test_the_command_keeps_as_many_runs_as_it_is_told_and_says_which_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _nights(RUNS, "nightly", 2, 1)
    ended = CliRunner().invoke(app, ["cache", "--keep", "1"], catch_exceptions=False)
    assert ended.exit_code == 0
    assert f"{RUNS / 'nightly-01'}: removed, " in ended.output
    assert "nightly-02" not in ended.output
    assert [path.name for path in RUNS.iterdir()] == ["nightly-02"]
    assert CliRunner().invoke(app, ["cache", "--keep", "0"], catch_exceptions=False).exit_code == 2


def test_thinning_out_leaves_a_run_alone_that_is_being_written(tmp_path: Path) -> None:
    old, _ = _nights(tmp_path, "nightly", 1, 2)
    with FileLock(old / ".lock"):
        removed, left_alone = thin_out(1, tmp_path)
    assert removed == []
    assert "Another process" in left_alone[0]
    assert len(load_finished(old).records) == 40
