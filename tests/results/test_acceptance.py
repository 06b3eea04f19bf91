"""Which records count: the same check wherever they are read, and every kind of alteration named."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from robustbench_twicing.errors import UserError
from robustbench_twicing.results.baselines import accept, load_baseline
from robustbench_twicing.results.manifest import Shard
from robustbench_twicing.results.of_task import TABLES
from robustbench_twicing.results.run import load_finished, load_run
from robustbench_twicing.results.store import SCHEMA, RunFolder
from tests.records_builder import cell, records, run_folder

RIGHT = np.arange(40) % 4 > 0
FRAME = records({(model, threat): RIGHT for model in ("deit", "deit-tw") for threat in ("clean", "pgd-linf-4/255")})


def _replaced(folder: RunFolder, change: Callable[[pd.DataFrame], pd.DataFrame], position: int = 3) -> Shard:
    """Give one shard, whole and with the right checksum, other records."""
    shard = list(folder.manifest().shards)[position]
    (file,) = folder.whole_files(shard)
    rows = pq.read_table(file).to_pandas()
    file.unlink()
    folder.write_shard(shard, change(rows))
    return shard


ALTERED: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "rows dropped": (lambda rows: rows.iloc[20:], "has 20 rows for 40 samples"),
    "only right answers kept": (lambda rows: rows[rows["correct"]], "has 30 rows for 40 samples"),
    "rows doubled": (lambda rows: pd.concat([rows, rows]), "has 80 rows for 40 samples"),
    "one sample twice": (lambda rows: rows.iloc[[0, *range(39)]], "more than once"),
    "another order": (lambda rows: rows.iloc[::-1], "other samples"),
    "another label": (
        lambda rows: rows.assign(label=(rows["label"] + 1) % 10, prediction=(rows["prediction"] + 1) % 10),
        "other samples, or other labels",
    ),
    "half skipped": (
        lambda rows: rows.assign(status=np.where(rows.index < 20, "skipped", "ok")),
        "a status that no run gives",
    ),
    "half failed": (
        lambda rows: rows.assign(status=np.where(rows.index < 20, "failed", "ok")),
        "failed with an answer",
    ),
    "all correct": (lambda rows: rows.assign(correct=True), "correct does not follow"),
    "no class": (lambda rows: rows.assign(prediction=10, correct=False, correct_8bit=False), "prediction is no class"),
    "an error that is none": (lambda rows: rows.assign(error="x"), "error does not fit"),
    "other rounding": (lambda rows: rows.assign(correct_8bit=~rows["correct"]), "correct_8bit is not correct"),
    "far away": (lambda rows: rows.assign(linf_distance=0.9), "linf_distance above eps"),
    "just outside": (lambda rows: rows.assign(linf_distance=4.001 / 255), "linf_distance above eps"),
    "nowhere": (lambda rows: rows.assign(linf_distance=np.nan), "linf_distance above eps"),
    "no such score": (lambda rows: rows.assign(brier=2.1), "brier is outside [0, 2]"),
    "another model": (lambda rows: rows.assign(model="deit"), "has model 'deit', and not 'deit-tw'"),
    "other weights": (lambda rows: rows.assign(weights_hash="x"), "has weights_hash 'x'"),
    "another threat": (lambda rows: rows.assign(threat="clean"), "has threat 'clean'"),
    "other settings": (lambda rows: rows.assign(protocol_hash="x"), "has protocol_hash 'x'"),
    "another seed": (lambda rows: rows.assign(seed=1), "has seed 1, and not 0"),
    "other data": (lambda rows: rows.assign(data_fingerprint="x"), "has data_fingerprint 'x'"),
}


@pytest.mark.parametrize("name", ALTERED)
def test_an_altered_shard_does_not_count_and_is_named(tmp_path: Path, name: str) -> None:
    change, why = ALTERED[name]
    folder = RunFolder(run_folder(tmp_path, FRAME))
    shard = _replaced(folder, change)
    run = load_run(tmp_path)
    ((lacking, said, files, disputed),) = run.lacking
    assert lacking == shard
    assert why in said
    assert list(files) == folder.files_of(shard)
    assert not disputed
    assert len(run.records) == 120
    with pytest.raises(UserError, match=r"lacks 1 of its shards:\n  deit-tw\.pgd.*samples 0 to 39") as refused:
        load_finished(tmp_path)
    assert why in refused.value.message


def test_within_rounding_is_within_eps(tmp_path: Path) -> None:
    frame = records({("deit", "pgd-linf-4/255"): RIGHT}, linf_distance=4 / 255 + 2e-7)
    assert len(load_finished(run_folder(tmp_path, frame)).records) == 40


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        ("another type", "has a column correct of type string, and not bool"),
        ("a column more", "has other columns than it must: more"),
        ("a column less", "has other columns than it must: loss"),
        ("no values", "has 40 row(s) without correct"),
        ("no parquet", "cannot be read"),
    ],
)
def test_files_that_hold_no_records_are_named(tmp_path: Path, harm: str, why: str) -> None:
    folder = RunFolder(run_folder(tmp_path, FRAME))
    shard = next(folder.manifest().shards)
    (file,) = folder.whole_files(shard)
    table = pq.read_table(file)
    correct = table.column_names.index("correct")
    if harm == "another type":
        table = table.set_column(correct, "correct", table["correct"].cast("string"))
    elif harm == "a column more":
        table = table.append_column("more", table["label"])
    elif harm == "a column less":
        table = table.drop_columns("loss")
    elif harm == "no values":
        table = table.set_column(correct, "correct", pa.nulls(40, pa.bool_()))
    pq.write_table(table, tmp_path / "other.parquet")
    content = b"PAR1 and nothing else" if harm == "no parquet" else (tmp_path / "other.parquet").read_bytes()
    file.unlink()
    _write(folder, shard, content)
    ((_, said, *_),) = load_run(tmp_path).lacking
    assert why in said


def _write(folder: RunFolder, shard: Shard, content: bytes) -> None:
    """Under the name that goes with these bytes."""
    name = f"{shard.start:07d}-{shard.stop:07d}-{hashlib.sha256(content).hexdigest()[:16]}.parquet"
    (folder.path / "records" / shard.cell / name).write_bytes(content)


def test_two_whole_files_for_one_span_are_refused_if_they_contradict_each_other(tmp_path: Path) -> None:
    folder, elsewhere = RunFolder(run_folder(tmp_path / "run", FRAME)), RunFolder(tmp_path / "elsewhere")
    shard = next(folder.manifest().shards)

    def brought(rows: pd.DataFrame) -> None:
        """A second file beside the run's own, as who copies run folders into each other makes it."""
        shutil.copy(elsewhere.write_shard(shard, rows), folder.files_of(shard)[0].parent)

    brought(cell("deit", "clean", RIGHT, seconds=0.5))  # the same, computed once more
    assert len(folder.whole_files(shard)) == 2
    assert len(load_finished(folder.path).records) == 160
    brought(cell("deit", "clean", ~RIGHT))
    with pytest.raises(UserError, match="contradict each other") as refused:
        load_finished(folder.path)
    assert all(str(file) in refused.value.message for file in folder.whole_files(shard))


def test_a_shard_cut_short_or_gone_is_named_and_nothing_is_renamed(tmp_path: Path) -> None:
    folder = RunFolder(run_folder(tmp_path, FRAME))
    one, other, *_ = folder.manifest().shards
    (file,) = folder.files_of(one)
    file.write_bytes(file.read_bytes()[:-7])
    folder.files_of(other)[0].unlink()
    before = sorted(tmp_path.rglob("*"))
    assert [lack.why for lack in load_run(tmp_path).lacking] == ["is damaged", "is missing"]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_a_shard_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    folder = RunFolder(run_folder(tmp_path, FRAME))
    folder.files_of(next(folder.manifest().shards))[0].chmod(0)
    assert "cannot be read" in load_run(tmp_path).lacking[0].why


def test_failed_samples_count_as_records(tmp_path: Path) -> None:
    frame = records({("deit", "clean"): RIGHT}, status=np.where(np.arange(40) < 3, "failed", "ok"))
    run = load_finished(run_folder(tmp_path, frame))
    assert run.summary["failed"].tolist() == [3]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda rows: rows.assign(correct=False), "correct does not follow"),
        (lambda rows: rows.iloc[:100], "holds 100 records, and its manifest names 160"),
        (lambda rows: rows.assign(correct=rows["correct"].astype(str)), "a column correct of type"),
        (lambda rows: rows.assign(correct=np.nan), "a column correct of type double, and not bool"),
        (lambda rows: rows.assign(correct=rows["correct"].astype(object).where(rows.index > 3)), "4 row"),
        (lambda rows: rows.assign(status=np.where(rows.index % 2, "ok", "skipped")), "a status that no run gives"),
        (lambda rows: rows.assign(weights_hash="x"), "has weights_hash 'x'"),
        (lambda rows: rows.iloc[::-1], "deit:clean"),
        (lambda rows: rows.drop(columns="label"), "other columns than it must: label"),
    ],
)
def test_a_baseline_goes_through_the_same_check(
    tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame], why: str
) -> None:
    place = tmp_path / "b"
    accept(load_finished(run_folder(tmp_path / "run", FRAME)), place, who="ada", why="first")
    file = place / "records.parquet"
    change(pd.read_parquet(file)).to_parquet(file, index=False)
    manifest = place / "baseline.json"
    old = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**old, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}))
    with pytest.raises(UserError, match=why):
        load_baseline(place)


def test_a_baseline_keeps_columns_of_a_record_in_their_order() -> None:
    assert [name for name in SCHEMA.names if name in TABLES["images"].kept] == list(TABLES["images"].kept)
