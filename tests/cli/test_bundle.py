"""`twicing-bench bundle`: evidence that a stranger can check, and evidence that does not hold."""

import getpass
import hashlib
import io
import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from robustbench_twicing.cli.app import app
from robustbench_twicing.results.run import load_run
from robustbench_twicing.results.store import RunFolder
from tests.records_builder import records, run_folder, with_flips

BEFORE, AFTER = with_flips(60, right=40, lost=9, gained=12)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    threats = ("clean", "pgd-linf-1/255", "digits-c:fog-1", "digits-c:fog-3")
    run_folder(
        Path("night"), records({(m, t): right for m, right in (("deit", BEFORE), ("tw", AFTER)) for t in threats})
    )


def _call(*arguments: str, code: int = 0) -> Any:
    result = CliRunner().invoke(app, ["bundle", *arguments], catch_exceptions=False, env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    return result


def _members(path: str = "e.zip") -> dict[str, bytes]:
    with ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _written(members: dict[str, bytes], sums: bool = True) -> None:
    """Under e.zip, with the checksums that fit unless told otherwise."""
    if sums:
        lines = [f"{hashlib.sha256(c).hexdigest()}  {name}\n" for name, c in members.items() if name != "SHA256SUMS"]
        members["SHA256SUMS"] = "".join(lines).encode()
    with ZipFile("e.zip", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def test_a_bundle_is_whole_small_and_the_same_each_time() -> None:
    said = _call("night", "--out", "e.zip").stdout
    assert said.startswith("Wrote e.zip (11 files, ")
    _call("make", "night", "--out", "again.zip")
    assert Path("again.zip").read_bytes() == Path("e.zip").read_bytes()
    assert _call("verify", "e.zip").stdout.startswith("e.zip: ")
    content = json.loads(_call("verify", "e.zip", "--json").stdout)
    assert (content["records"], content["contradictions"], content["unknown"]) == (480, [], [])
    assert content["values"] == 8 * len(load_run("night").summary.columns) + 2 * (
        len(load_run("night").suites.columns) - 1
    )


def test_anybody_can_check_and_unpack_it_without_us(tmp_path: Path) -> None:
    _call("night", "--out", "e.zip")
    with ZipFile("e.zip") as archive:
        archive.extractall("unpacked")
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd="unpacked", check=True)
    pd.testing.assert_frame_equal(load_run("unpacked").summary, load_run("night").summary)


def test_verifying_needs_no_torch() -> None:
    _call("night", "--out", "e.zip")
    code = (
        "import sys; from robustbench_twicing.results.verified import verify_bundle; from pathlib import Path; "
        "print(len(verify_bundle(Path('e.zip')).contradictions), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "0 False\n"


# --- what is left out ------------------------------------------------------------------------------------------------


def _private(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "adalove")
    monkeypatch.setattr(socket, "gethostname", lambda: "engine9.example.org")
    monkeypatch.setenv("HOME", "/mnt/people/adalove")
    frame = records({("deit", "clean"): BEFORE}, status=np.where(np.arange(60) < 2, "failed", "ok"))
    frame.loc[frame["status"] == "failed", "error"] = "/home/bob/data/x.JPEG is cut short"
    command = ("/mnt/people/adalove/bin/twicing-bench", "attack", "--data-dir", "/scratch/adalove/imagenet")
    run_folder(
        Path("own"),
        frame,
        command=command,
        platform="Linux engine9",
        decided=("deit: weights ~ of C:\\Users\\ada\\x.pth, found under /mnt/people/adalove/w",),
    )


def test_names_of_the_machine_are_left_out_and_every_number_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    _private(monkeypatch)
    _call("own", "--out", "e.zip")
    members = _members()
    manifest = json.loads(members["run.json"])
    assert manifest["command"] == ["twicing-bench", "attack", "--data-dir", "/scratch/user/imagenet"]
    assert manifest["platform"] == "Linux host"
    assert manifest["decided"] == ["deit: weights ~ of ~\\x.pth, found under ~/w"]
    (shard,) = (pq.read_table(io.BytesIO(c)).to_pandas() for name, c in members.items() if name.endswith(".parquet"))
    assert set(shard["error"]) == {"", "~/data/x.JPEG is cut short"}
    everything = b"".join(members.values())
    assert [word for word in (b"adalove", b"engine9", b"bob") if word in everything] == []
    _call("verify", "e.zip")
    _call("own", "--out", "named.zip", "--with-names")
    assert json.loads(_members("named.zip")["run.json"])["command"][-1] == "/scratch/adalove/imagenet"
    _call("verify", "named.zip")


def test_a_name_that_numbers_hang_on_is_pointed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    _private(monkeypatch)
    frame = records({("deit", "clean"): BEFORE})
    frame["sample_id"] = [f"/home/bob/{number}" for number in range(60)]
    run_folder(Path("own"), frame)
    assert "left in ids of samples" in _call("own", "--out", "e.zip").stdout


# --- what does not hold ----------------------------------------------------------------------------------------------


def _summary(old: str, new: str) -> Callable[[dict[str, bytes]], None]:
    def change(members: dict[str, bytes]) -> None:
        text = members["summary.csv"].decode()
        assert old in text
        members["summary.csv"] = text.replace(old, new, 1).encode()

    return change


def _without_a_row(members: dict[str, bytes]) -> None:
    members["summary.csv"] = b"".join(members["summary.csv"].splitlines(keepends=True)[:-1])


def _a_row_twice(members: dict[str, bytes]) -> None:
    members["summary.csv"] += members["summary.csv"].splitlines(keepends=True)[-1]


def _another_answer(members: dict[str, bytes]) -> None:
    """A record that is changed with everything that says so: its file's name, and the checksums."""
    Path("other").mkdir()
    frame = load_run("night").records
    wrong = frame.index[~frame["correct"]][0]
    frame.loc[wrong, ["prediction", "correct", "correct_unmasked", "top5_correct", "correct_8bit"]] = [
        frame.loc[wrong, "label"],
        *[True] * 4,
    ]
    run_folder(Path("other"), frame)
    folder = RunFolder(Path("other"))
    for name in [name for name in members if name.endswith(".parquet")]:
        del members[name]
    for file in folder.path.glob("records/*/*.parquet"):
        members[file.relative_to(folder.path).as_posix()] = file.read_bytes()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_summary("0.6666666666666666", "0.6766666666666666"), "0.6766666666666666"),
        (_summary("deit,deit_digits_patch8_32", "deit,deit_digits_patch8_99"), "deit_digits_patch8_99"),
        (_without_a_row, "no such row"),
        (_a_row_twice, "9 rows"),
        (_another_answer, "0.6833333333333333"),
    ],
)
def test_a_number_that_does_not_follow_is_named_with_exit_code_5(
    change: Callable[[dict[str, bytes]], None], says: str
) -> None:
    _call("night", "--out", "e.zip")
    members = _members()
    change(members)
    _written(members)
    output = _call("verify", "e.zip", code=5).stdout
    assert says in output
    assert "not follow." in output


def test_a_column_that_nobody_here_can_compute_is_inconclusive() -> None:
    _call("night", "--out", "e.zip")
    members = _members()
    lines = members["summary.csv"].decode().splitlines()
    members["summary.csv"] = "\n".join([f"{lines[0]},doubt", *(f"{line},0.5" for line in lines[1:]), ""]).encode()
    _written(members)
    assert "doubt of summary.csv" in _call("verify", "e.zip", code=4).stdout


def _cut(members: dict[str, bytes]) -> None:
    Path("e.zip").write_bytes(Path("e.zip").read_bytes()[:-300])


def _flipped(members: dict[str, bytes]) -> None:
    content = bytearray(Path("e.zip").read_bytes())
    content[len(content) // 3] ^= 1
    Path("e.zip").write_bytes(content)


def _leaving(members: dict[str, bytes]) -> None:
    _written({**members, "../evil.txt": b"x"})


def _absolute(members: dict[str, bytes]) -> None:
    _written({**members, "/tmp/evil.parquet": b"x"})


def _hidden(members: dict[str, bytes]) -> None:
    _written({**members, "records/../../evil.parquet": b"x"})


def _changed(members: dict[str, bytes]) -> None:
    _written({**members, "summary.csv": members["summary.csv"] + b"\n"}, sums=False)


def _lacking(members: dict[str, bytes]) -> None:
    shard = next(name for name in members if name.endswith(".parquet"))
    _written({name: content for name, content in members.items() if name != shard}, sums=False)


def _quietly_lacking(members: dict[str, bytes]) -> None:
    shard = next(name for name in members if name.endswith(".parquet"))
    _written({name: content for name, content in members.items() if name != shard})


def _bomb(members: dict[str, bytes]) -> None:
    _written(members)
    with ZipFile("e.zip", "w", compression=8) as archive:
        for name, content in members.items():
            archive.writestr(name, content if name != "summary.csv" else b"0" * 50_000_000)


def _no_zip(members: dict[str, bytes]) -> None:
    Path("e.zip").write_bytes(b"hello")


def _other_zip(members: dict[str, bytes]) -> None:
    with ZipFile("e.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_cut, "e.zip cannot be read"),
        (_flipped, "e.zip"),
        (_leaving, "'../evil.txt', which no bundle has"),
        (_absolute, "'/tmp/evil.parquet', which no bundle has"),
        (_hidden, "which no bundle has"),
        (_changed, "summary.csv has another checksum"),
        (_lacking, "is not whole"),
        (_quietly_lacking, "lacks 1 of its shards"),
        (_bomb, "would be 50000000 bytes"),
        (_no_zip, "e.zip cannot be read"),
        (_other_zip, "which no bundle has"),
    ],
)
def test_what_is_no_whole_bundle_is_refused(damage: Callable[[dict[str, bytes]], None], says: str) -> None:
    _call("night", "--out", "e.zip")
    damage(_members())
    assert says in _call("verify", "e.zip", code=2).output
    assert not list(Path().parent.glob("evil*"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere", "--out", "e.zip"], "There is no run 'nowhere'"),
        (["night", "--out", "night/run.json/e.zip"], "is not a folder"),
        (["night", "--out", "night"], "cannot be used"),
        (["verify", "nothing.zip"], "There is no file nothing.zip"),
        (["begun", "--out", "e.zip"], "is not finished"),
        (["lacking", "--out", "e.zip"], "lacks 1 of its shards"),
    ],
)
def test_what_cannot_be_bundled_leaves_nothing(arguments: list[str], says: str) -> None:
    for name in ("begun", "lacking"):
        run_folder(Path(name), records({("deit", "clean"): BEFORE}))
    manifest = Path("begun/run.json")
    manifest.write_text(manifest.read_text().replace('"status": "finished"', '"status": "running"'))
    next(iter(Path("lacking").glob("records/*/*.parquet"))).unlink()
    assert says in _call(*arguments, code=2).output
    assert not Path("e.zip").exists()
    assert not list(Path().glob(".*.part"))


def test_kept_images_travel_and_what_does_not_belong_to_the_records_is_named() -> None:
    assert "kept no images" in _call("night", "--out", "e.zip", "--images", code=2).stderr
    run = load_run("night")
    (entry,) = [one for one in run.manifest.cells if (one.model, one.threat) == ("tw", "pgd-linf-1/255")]
    place = Path("night/images") / entry.folder
    place.mkdir(parents=True)
    clean = np.random.default_rng(0).random((2, 3, 8, 8)).astype(np.float32)
    rows = run.cells["tw", "pgd-linf-1/255"].iloc[:2]
    arrays: dict[str, Any] = {
        "ids": rows["sample_id"].to_numpy(dtype=np.str_),
        "labels": rows["label"].to_numpy(),
        "predictions": rows["prediction"].to_numpy(),
        "correct": rows["correct"].to_numpy(bool),
        "space": np.array("pixel"),
        "mean": np.full(3, 0.5),
        "std": np.full(3, 0.5),
        "clean": clean,
    }

    def kept(change: float = 1 / 255, **other: Any) -> None:
        np.savez(place / "images.npz", **{**arrays, "images": clean + np.float32(change), **other})
        for number in range(2):
            levels = (np.clip(clean[number] + change, 0, 1) * 255).round().astype(np.uint8)
            Image.fromarray(levels.transpose(1, 2, 0)).save(place / f"{number}-x.png")
        _call("night", "--out", "e.zip", "--images")

    kept()
    assert "480 records, and 2 images, follow." in _call("verify", "e.zip").stdout
    assert len([name for name in _members() if name.startswith("images/")]) == 3
    kept(change=3 / 255)
    assert "at most 0.00392" in _call("verify", "e.zip", code=5).stdout
    kept(predictions=1 - arrays["predictions"], labels=arrays["labels"] + 1)
    wrong = json.loads(_call("verify", "e.zip", "--json", code=5).stdout)["contradictions"]
    assert {(one["column"], one["row"]) for one in wrong} >= {("labels", "test-00000"), ("labels", "test-00001")}
    kept()
    Image.new("RGB", (8, 8)).save(place / "0-x.png")
    _call("night", "--out", "e.zip", "--images")
    assert "none of images.npz" in _call("verify", "e.zip", code=5).stdout
    members = _members()
    _written({("images/../x.png" if name.endswith("0-x.png") else name): c for name, c in members.items()})
    assert "no bundle has" in _call("verify", "e.zip", code=2).stderr
    _written({name: b"x" if name.endswith(".npz") else c for name, c in members.items()})
    assert "images.npz" in _call("verify", "e.zip", code=2).stderr
