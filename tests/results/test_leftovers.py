"""What the run folders hold: what the manifest names stays, everything stray can go."""

from pathlib import Path

import numpy as np
from filelock import FileLock

from robustbench_twicing.results.leftovers import prune, survey
from robustbench_twicing.results.manifest import Shard
from robustbench_twicing.results.run import load_finished
from robustbench_twicing.results.store import RunFolder
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
