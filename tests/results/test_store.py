"""The run folder: whole shards or none, damage noticed, other settings and other processes kept out."""

import errno
import os
import stat
from pathlib import Path

import pandas as pd
import pytest
from filelock import FileLock

from robustbench_twicing.errors import UserError
from robustbench_twicing.results.manifest import Shard
from robustbench_twicing.results.store import RunFolder, cell_folder, write_whole
from robustbench_twicing.spec.records import COLUMNS

_FILLER = {"string": "x", "int64": 3, "float64": 0.5, "bool": True}


def _rows(start: int, stop: int) -> pd.DataFrame:
    rows = pd.DataFrame({column.name: [_FILLER[column.type]] * (stop - start) for column in COLUMNS})
    rows["sample_id"] = [f"s{number}" for number in range(start, stop)]
    return rows


@pytest.mark.parametrize("harm", ["truncate", "flip"])
def test_a_damaged_shard_is_not_whole_and_stays_until_it_is_set_aside(tmp_path: Path, harm: str) -> None:
    folder, shard = RunFolder(tmp_path), Shard("cell", 0, 4)
    folder.write_shard(shard, _rows(0, 4))
    (file,) = folder.whole_files(shard)
    content = bytearray(file.read_bytes())
    if harm == "truncate":
        content = content[:-7]
    else:
        content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    assert folder.whole_files(shard) == {}
    assert folder.files_of(shard) == [file]
    assert folder.damaged() == []
    assert folder.set_aside(file) == folder.damaged()[0]
    folder.write_shard(shard, _rows(0, 4))
    assert list(folder.whole_files(shard)) == [file]


@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o600), (0o022, 0o644), (0o002, 0o664)])
def test_files_get_the_permissions_that_the_umask_leaves(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        write_whole(tmp_path / "run.json", b"{}")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "run.json").stat().st_mode) == mode


def test_a_file_appears_under_its_name_only_when_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left") as caught:
        write_whole(tmp_path / "file", b"content")
    assert "same command again" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_disk_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: object, **named: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(UserError, match="cannot be written") as caught, RunFolder(tmp_path / "run").locked():
        pass
    assert "--out" in caught.value.hint


def test_a_file_in_the_place_of_the_folder_is_explained(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(UserError, match="not a folder"), RunFolder(tmp_path / "run").locked():
        pass


def test_two_processes_do_not_write_one_run(tmp_path: Path) -> None:
    with FileLock(tmp_path / ".lock"), pytest.raises(UserError, match="Another process"), RunFolder(tmp_path).locked():
        pass
    with RunFolder(tmp_path).locked():
        pass


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a run folder"):
        RunFolder(tmp_path).manifest()


def test_a_cells_folder_follows_whatever_decides_its_numbers() -> None:
    names = {cell_folder("m", "pgd-linf-1/255", {"seed": seed, "weights": w}) for seed in (0, 1) for w in ("a", "b")}
    assert len(names) == 4
    assert all("/" not in name and name.startswith("m.pgd-linf-1of255.") for name in names)


def test_what_a_disk_cannot_do_is_explained(tmp_path: Path) -> None:
    for place in (tmp_path / ("x" * 300), tmp_path / "file" / "below"):
        (tmp_path / "file").touch()
        with pytest.raises(UserError, match=r"File name too long|is not a folder"):
            write_whole(place / "run.json", b"{}")
    with pytest.raises(UserError, match="File name too long"):
        RunFolder(tmp_path / ("x" * 300)).exists()


def test_no_spreadsheet_computes_a_name(tmp_path: Path) -> None:
    names = ["=cmd|'/c calc'!A1", "+1", "-1", "@SUM(A1)", "deit"]
    RunFolder(tmp_path).write_summary(pd.DataFrame({"model": names, "drop": [-0.5, 0.0, None, 0.1, 0.2]}))
    read = pd.read_csv(tmp_path / "summary.csv")
    assert list(read["model"]) == [*(f"'{name}" for name in names[:4]), "deit"]
    assert read["drop"].iloc[0] == -0.5
