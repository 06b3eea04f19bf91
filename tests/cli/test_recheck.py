"""`twicing-bench recheck`: a reviewer computes some records again."""

import json
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from robustbench_twicing.catalog.locate import package_file
from robustbench_twicing.cli.app import app
from robustbench_twicing.metrics.intervals import most_wrong
from robustbench_twicing.results.drawn import drawn
from robustbench_twicing.results.run import load_run
from robustbench_twicing.results.store import RunFolder, file_of_rows
from robustbench_twicing.tasks.images import agreement
from tests.records_builder import records, run_folder


def _call(*arguments: str, code: int = 0) -> Any:
    result = CliRunner().invoke(app, [*arguments], catch_exceptions=False, env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real run: 20 digits, clean, attacked, corrupted, and attacked by who draws for all samples together."""
    folder = tmp_path_factory.mktemp("honest") / "run"
    what = [
        "--attack",
        "fgsm",
        "--attack",
        "bim",
        "--eps",
        "4/255",
        "--suite",
        "digits-c",
        "-c",
        "fog",
        "--severity",
        "3",
    ]
    _call("attack", "--model", "deit", *what, "--limit", "20", "--quiet", "--out", str(folder))
    return folder


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, honest: Path) -> None:
    monkeypatch.chdir(tmp_path)
    copytree(honest, "run")


def _alter(share: float, **answer: Any) -> list[tuple[str, str]]:
    """Change so many of the run's answers to a wrong class, with everything that follows: (threat, sample)."""
    folder, run = RunFolder(Path("run")), load_run("run")
    rows = run.records.copy()
    chosen = np.random.default_rng(5).permutation(len(rows))[: round(share * len(rows))]
    for number in chosen:
        wrong = answer.get("prediction", (rows.loc[number, "label"] + 1 + rows.loc[number, "correct"]) % 10)
        wrong = wrong if wrong != rows.loc[number, "prediction"] else (wrong + 1) % 10
        right = bool(wrong == rows.loc[number, "label"])
        rows.loc[number, ["prediction", "correct", "correct_unmasked", "correct_8bit"]] = [wrong, right, right, right]
    start = 0
    for shard in run.manifest.shards:
        count = shard.stop - shard.start
        folder.keep(shard, *file_of_rows(shard, rows.iloc[start : start + count]))
        start += count
    return sorted((rows.loc[number, "threat"], rows.loc[number, "sample_id"]) for number in chosen)


# --- the drawing and the bound ---------------------------------------------------------------------------------------


def test_every_record_is_drawn_equally_often_and_a_seed_draws_the_same_ones() -> None:
    assert drawn(1000, 50, 7) == drawn(1000, 50, 7) != drawn(1000, 50, 8)
    assert drawn(20, 50, 7) == list(range(20))
    times = np.bincount(np.concatenate([drawn(40, 10, seed) for seed in range(4000)]), minlength=40)
    assert (abs(times - 1000) < 4.5 * np.sqrt(4000 * 0.25 * 0.75)).all()


@pytest.mark.parametrize("sample", [50, 149, 400])
def test_two_percent_of_wrong_records_are_found_as_often_as_the_bound_says(sample: int) -> None:
    records_, wrong, seeds = 20_000, 400, 800
    found = np.array([sum(number < wrong for number in drawn(records_, sample, seed)) for seed in range(seeds)])
    missed = (found == 0).mean()
    expected = (1 - wrong / records_) ** sample
    assert abs(missed - expected) < 4 * np.sqrt(expected * (1 - expected) / seeds) + 0.003
    covered = np.mean([most_wrong(int(k), sample, records_) >= wrong / records_ for k in found])
    assert covered >= 0.95 - 4 * np.sqrt(0.95 * 0.05 / seeds)
    if sample == 149:  # as many as it takes for a clean result to exclude 2 %
        assert most_wrong(0, 149, records_) < 0.02 < most_wrong(0, 148, records_)


# --- a real run ------------------------------------------------------------------------------------------------------


def test_an_honest_run_and_its_bundle_hold(tmp_path: Path) -> None:
    _call("bundle", "run", "--out", "e.zip")
    for path in ("run", "e.zip"):
        said = json.loads(_call("recheck", path, "--sample", "30", "--seed", "3", "--quiet", "--json").stdout)
        assert (said["records"], said["checked"], said["wrong"], said["near_ties"]) == (80, 30, 0, 0)
        assert said["most_wrong"] == pytest.approx(1 - 0.05 ** (1 / 30))
    text = _call("recheck", "e.zip", "--sample", "5", "--quiet").stdout
    assert "5 of 80 records" in text
    assert "Drawn with --seed" in text


def test_altered_records_are_found_by_name_with_exit_code_5() -> None:
    altered = _alter(0.05)
    said = json.loads(_call("recheck", "run", "--sample", "200", "--quiet", "--json", code=5).stdout)
    assert sorted({(one["threat"], one["sample"]) for one in said["differ"]}) == altered
    assert said["wrong"] == len(altered) == 4
    assert said["most_wrong"] == 0.05  # everything was checked


def test_a_difference_that_rounding_can_make_is_shown_and_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    _alter(0.025)
    monkeypatch.setattr(agreement, "FORWARD", 100.0)  # as if logits were known to no digit
    monkeypatch.setattr(agreement, "ATTACKED", 100.0)
    said = json.loads(_call("recheck", "run", "--sample", "200", "--quiet", "--json").stdout)
    assert (said["wrong"], said["near_ties"]) == (0, 2)
    assert said["most_wrong"] == 0.025


def test_a_margin_that_is_made_up_is_a_wrong_record() -> None:
    folder, run = RunFolder(Path("run")), load_run("run")
    shard = next(iter(run.manifest.shards))
    rows = run.records.iloc[: shard.stop].copy()
    rows.loc[3, "margin"] += 0.1
    folder.keep(shard, *file_of_rows(shard, rows))
    said = json.loads(_call("recheck", "run", "--sample", "200", "--quiet", "--json", code=5).stdout)
    assert [(one["column"], one["sample"]) for one in said["differ"]] == [("margin", rows.loc[3, "sample_id"])]


# --- bad input -------------------------------------------------------------------------------------------------------


def test_what_cannot_be_checked_is_refused_by_name() -> None:
    other = package_file("weights/deit-tw-digits.safetensors")
    refused = _call("recheck", "run", "--model", f"deit={other}", code=2).output
    assert "the weights of 'deit' are " in refused
    assert "Nothing was computed" in refused
    assert "No checkpoint at x.pth" in _call("recheck", "run", "--model", "deit=x.pth", code=2).output
    assert "Unknown model of this run 'vit'" in _call("recheck", "run", "--model", "vit=x.pth", code=2).output
    assert "names no weights" in _call("recheck", "run", "--model", "deit", code=2).output
    assert "There is no run 'nowhere'" in _call("recheck", "nowhere", code=2).output
    _call("bundle", "run", "--out", "e.zip")
    Path("e.zip").write_bytes(Path("e.zip").read_bytes()[:-300])
    assert "e.zip cannot be read" in _call("recheck", "e.zip", code=2).output
    next(Path("run").glob("records/*/*.parquet")).unlink()
    assert "lacks 1 of its shards" in _call("recheck", "run", code=2).output


def test_missing_weights_and_missing_data_are_said_before_anything_is_loaded() -> None:
    run_folder(Path("other"), records({("deit", "imagenet-a"): np.ones(20, dtype=bool)}))
    assert "The weights of 'deit' are not here: weights.safetensors" in _call("recheck", "other", code=2).output
    Path("weights.safetensors").touch()
    assert "No folder is known for 'imagenet-a'" in _call("recheck", "other", code=2).output
