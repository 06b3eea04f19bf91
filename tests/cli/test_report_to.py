"""`twicing-bench report RUN --to FILE`: what is written where, over one run and several, and what is refused."""

import csv
import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from robustbench_twicing.cli.app import app
from tests.records_builder import records, run_folder, with_flips

BEFORE, AFTER = with_flips(200, right=150, lost=5, gained=40)
ATTACK = "fgsm-linf-1/255"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outcomes = {(m, t): right for m, right in (("deit", BEFORE), ("deit-tw", AFTER)) for t in ("clean", ATTACK)}
    run_folder(Path("night"), records(outcomes))
    run_folder(Path("morning"), records({("deit", t): AFTER for t in ("clean", ATTACK)}))


def _call(*arguments: str, code: int = 0) -> Any:
    result = CliRunner().invoke(app, ["report", *arguments], catch_exceptions=False, env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    return result


def test_the_verdict_of_the_models_is_the_last_line() -> None:
    *_, last = _call("night").stdout.strip().split("\n")
    assert last == (
        "deit-tw is better than deit (baseline; these weights) under 2 of 2 threats; they differ most under clean: "
        "+17.5 points (+11.6 to +24.0)."
    )
    *_, last = _call("morning").stdout.strip().split("\n")  # nothing to compare
    assert last == "deit: 92.5 % clean; 92.5 % (88.0 - 95.4) under fgsm-linf-1/255, its lowest."


def test_a_run_with_arms_says_what_the_mechanisms_are_and_compares_no_models() -> None:
    right = {f"{name}@s{seed}": np.arange(200) >= wrong + seed for seed in range(4) for name, wrong in WRONG.items()}
    arms = {name: (f"{name}@*",) for name in WRONG}
    run_folder(Path("arms"), records({(name, "clean"): answers for name, answers in right.items()}), arms=arms)
    said = _call("arms", "--to", "page.html", "--format", "terminal").stdout
    *_, last = said.strip().split("\n")
    assert last.startswith(
        "deit-tw is better than deit (baseline; as trained by this recipe) under 1 threat, the only one;"
    )
    assert "these weights" not in said
    assert "Every seed" in Path("page.html").read_text("utf-8")


WRONG = {"deit": 60, "deit-tw": 20}


def test_every_file_is_written_in_the_format_of_its_ending() -> None:
    names = ["page.html", "table.tex", "table.md", "summary.csv", "long.long.csv", "all.json", "page.txt"]
    said = _call("night", *(word for name in [*names, "plots/"] for word in ("--to", name)))
    assert said.stdout == ""
    assert said.stderr.split("\n")[:-1] == [f"Wrote {name}" for name in [*names, "plots"]]
    begins = (b"<!doctype html>", b"% Run night", b"## deit-tw is", b"run,", b"run,", b"{", b"protocol")
    wrong = [name for name, start in zip(names, begins, strict=True) if not Path(name).read_bytes().startswith(start)]
    assert wrong == []
    assert {path.name for path in Path("plots").iterdir()} == {f"fgsm-linf.{form}" for form in ("png", "svg", "pdf")}
    assert b"/FontFile2" in Path("plots/fgsm-linf.pdf").read_bytes()
    assert not list(Path().glob("**/.*.part"))


def test_a_file_beside_what_is_printed_is_no_hindrance() -> None:
    assert json.loads(_call("night", "--json", "--to", "page.html").stdout)["comparison"]["rows"]
    assert Path("page.html").exists()


def test_the_same_run_gives_the_same_files() -> None:
    for name in ("one", "other"):
        _call("night", "--to", f"{name}/page.html", "--to", f"{name}/page.tex", "--to", f"{name}/")
    for file in Path("one").iterdir():
        assert (Path("other") / file.name).read_bytes() == file.read_bytes(), file


def test_several_runs_stand_in_one_table_and_are_compared_with_the_first() -> None:
    text = _call("night", "morning").stdout
    assert "│ clean           │ deit in night    │ 200 │    75.0 │" in text
    assert "│                 │ deit in morning  │ 200 │    92.5 │" in text
    assert text.strip().split("\n")[-1].startswith("deit in morning is better than deit in night")
    _call("night", "morning", "--to", "both.csv")
    with Path("both.csv").open(newline="") as file:
        rows = [(row["run"], row["model"]) for row in csv.DictReader(file)]
    assert rows == [("night", "deit")] * 2 + [("night", "deit-tw")] * 2 + [("morning", "deit")] * 2
    assert len(json.loads(_call("night", "morning", "--json").stdout)["runs"]) == 2


def test_a_run_that_lacks_records_is_reported_without_a_verdict() -> None:
    next(iter(Path("night").glob("records/deit-tw*/*.parquet"))).unlink()
    *_, last = _call("night", "--to", "page.html", "--format", "terminal").stdout.strip().split("\n")
    assert last.startswith("Not whole: 1 of 4 shards do not count")
    assert "Not whole: 1 of 4 shards" in Path("page.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["night", "--to", "page.docx"], "Cannot tell from 'page.docx' how to write it."),
        (["night", "--to", "page"], "or in / for a folder of plots"),
        (["night", "--to", ".html"], "Cannot tell from '.html'"),
        (["night", "--to", "morning/run.json/page.html"], "is not a folder"),
        (["night", "--to", "night/run.json/"], "is not a folder"),
        (["night", "--to", "folder.html"], "folder.html is a folder."),
        (["night", "--to", "page.xml"], "Nothing is judged"),
        (["alone", "--to", "plots/"], "There is nothing to plot."),
        (["nowhere", "--to", "page.html"], "There is no run 'nowhere'"),
        (["night", "other"], "The runs share no model"),
        (["night", "./night"], "is named twice"),
    ],
)
def test_what_cannot_be_written_is_explained_and_leaves_nothing(arguments: list[str], says: str) -> None:
    Path("folder.html").mkdir()
    run_folder(Path("alone"), records({("deit", "clean"): BEFORE}))
    run_folder(Path("other"), records({(name, "clean"): BEFORE for name in ("vit", "swin")}))
    before = {path for path in Path().rglob("*") if path.is_file()}
    assert says in _call(*arguments, code=2).output
    assert {path for path in Path().rglob("*") if path.is_file()} == before


def test_a_disk_that_is_full_leaves_the_old_file_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("page.html").write_text("old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert "No space left on the disk" in _call("night", "--to", "page.html", code=2).output
    assert Path("page.html").read_text() == "old"
    assert not list(Path().glob(".*.part"))


def test_a_folder_that_may_not_be_written_is_refused_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # as for a user who is not root
    assert "cannot be written: Permission denied" in _call("nowhere", "--to", "there/page.html", code=2).output


def test_models_that_fail_alike_everywhere_are_still_reported() -> None:
    frame = records({(m, "clean"): BEFORE for m in ("deit", "deit-tw")}, status="failed", error="gone")
    run_folder(Path("failed"), frame)
    text = _call("failed").stdout
    assert "Not compared: clean: " in text
    assert "400 record(s) failed" in text
