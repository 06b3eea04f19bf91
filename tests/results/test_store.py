"""The run folder: whole shards or none, damage noticed, other settings and other processes kept out."""

import errno
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock

from robustbench_twicing.errors import UserError
from robustbench_twicing.results.store import RunFolder, Shard, cell_folder, write_whole
from robustbench_twicing.spec.records import COLUMNS

_FILLER = {"string": "x", "int64": 3, "float64": 0.5, "bool": True}


def _rows(start: int, stop: int) -> pd.DataFrame:
    rows = pd.DataFrame({column.name: [_FILLER[column.type]] * (stop - start) for column in COLUMNS})
    rows["sample_id"] = [f"s{number}" for number in range(start, stop)]
    return rows


def test_shards_come_back_in_order_and_unchanged(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    first, second = Shard("cell", 0, 4), Shard("cell", 4, 6)
    folder.write_shard(second, _rows(4, 6))
    folder.write_shard(first, _rows(0, 4))
    read = folder.records([first, second])
    assert list(read["sample_id"]) == [f"s{number}" for number in range(6)]
    assert list(read.columns) == [column.name for column in COLUMNS]
    assert read["loss"].dtype == np.float64
    assert read["correct"].dtype == np.bool_


@pytest.mark.parametrize("harm", ["truncate", "flip"])
def test_a_damaged_shard_counts_as_missing_and_is_set_aside(tmp_path: Path, harm: str) -> None:
    folder, shard = RunFolder(tmp_path), Shard("cell", 0, 4)
    folder.write_shard(shard, _rows(0, 4))
    file = folder.shard_file(shard)
    assert file is not None
    content = bytearray(file.read_bytes())
    if harm == "truncate":
        content = content[:-7]
    else:
        content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    assert folder.shard_file(shard) is None
    assert len(folder.damaged()) == 1
    folder.write_shard(shard, _rows(0, 4))
    assert len(folder.records([shard])) == 4


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


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": 99}'])
def test_a_manifest_of_another_kind_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UserError, match=r"run\.json"):
        RunFolder(tmp_path).manifest()


def test_an_earlier_schema_is_refused_naming_the_version_that_reads_it(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"schema_version": 2}')
    with pytest.raises(UserError, match="record schema 2; this version reads 3") as caught:
        RunFolder(tmp_path).manifest()
    assert "Use twicing-bench 0.1," in caught.value.hint


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


def test_a_damaged_shard_that_cannot_be_set_aside_counts_as_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, shard = RunFolder(tmp_path), Shard("cell", 0, 4)
    folder.write_shard(shard, _rows(0, 4))
    (file,) = folder.files_of(shard)
    file.write_bytes(file.read_bytes()[:-7])

    def refused(self: Path, target: Path) -> Path:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "rename", refused)
    assert len(folder.records([shard])) == 0
    assert folder.lacking == [shard]
    assert "damaged" in folder.remarks[0]


def test_a_manifest_that_lacks_something_says_what(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_manifest({"status": "finished"})
    with pytest.raises(UserError, match=r"run\.json was altered: it has no 'cells'"):
        folder.manifest()["cells"]
