"""Baselines: small, whole, signed by somebody, and never misread."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from robustbench_twicing.errors import UserError
from robustbench_twicing.results.baselines import accept, load_baseline
from robustbench_twicing.results.cells import by_cell
from robustbench_twicing.results.gate import check
from robustbench_twicing.results.of_task import TABLES
from robustbench_twicing.results.run import load_finished
from robustbench_twicing.spec.policy import Policy
from tests.records_builder import records, run_folder

RIGHT = np.arange(300) < 250
FRAME = records({(model, threat): RIGHT for model in ("deit", "deit-tw") for threat in ("clean", "fgsm-linf-1/255")})


def _accept(tmp_path: Path, why: str = "first night", who: str = "ada", name: str = "nightly") -> Path:
    run = run_folder(tmp_path / "run", FRAME)
    place = tmp_path / "baselines" / name
    accept(load_finished(run), place, who=who, why=why)
    return place


def test_it_keeps_what_a_comparison_needs(tmp_path: Path) -> None:
    baseline = load_baseline(_accept(tmp_path))
    pd.testing.assert_frame_equal(baseline.records, FRAME[list(TABLES["images"].kept)], check_dtype=False)
    result = check(by_cell(FRAME), by_cell(baseline.records), Policy())
    assert result.verdict == "pass"
    assert len(result.cells) == 4


def test_it_says_who_accepted_what_when_and_why_and_who_did_before(tmp_path: Path) -> None:
    _accept(tmp_path)
    place = _accept(tmp_path, why="new weights, checked by hand", who="grace")
    manifest = load_baseline(place).manifest
    assert (manifest.accepted.who, manifest.accepted.why) == ("grace", "new weights, checked by hand")
    assert manifest.accepted.when.endswith("+00:00")
    assert manifest.accepted.weights == {"deit": "weights of deit", "deit-tw": "weights of deit-tw"}
    assert [earlier.who for earlier in manifest.earlier] == ["ada"]


def test_the_same_records_give_the_same_file(tmp_path: Path) -> None:
    places = [_accept(tmp_path, name=name) for name in ("one", "other")]
    assert len({(place / "records.parquet").read_bytes() for place in places}) == 1


def test_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", FRAME, status="running")
    with pytest.raises(UserError, match="not finished"):
        accept(load_finished(run), tmp_path / "b", who="ada", why="")


def test_a_run_without_an_answer_is_refused(tmp_path: Path) -> None:
    frame = records({("deit", "clean"): RIGHT}, status="failed")
    run = load_finished(run_folder(tmp_path / "run", frame))
    with pytest.raises(UserError, match="no answered sample"):
        accept(run, tmp_path / "b", who="ada", why="")


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "baselines" / "nightly").mkdir(parents=True)
    (tmp_path / "baselines" / "nightly" / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="is no baseline"):
        _accept(tmp_path)


@pytest.mark.parametrize("harm", ["truncate", "flip", "remove", "pointer"])
def test_damage_is_noticed(tmp_path: Path, harm: str) -> None:
    file = _accept(tmp_path) / "records.parquet"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    if harm == "remove":
        file.unlink()
    else:
        harmed = {"truncate": content[:-5], "flip": content, "pointer": b"version https://git-lfs.github.com/spec/v1\n"}
        file.write_bytes(harmed[harm])
    with pytest.raises(UserError, match=r"records\.parquet"):
        load_baseline(file.parent)


@pytest.mark.parametrize("change", [{"seed": 1}, {"seed": "0"}, {"models": []}])
def test_a_baseline_whose_plan_was_altered_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    file = _accept(tmp_path) / "baseline.json"
    manifest = json.loads(file.read_text())
    manifest["run"]["plan"] |= change
    file.write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"baseline\.json was altered: .*plan"):
        load_baseline(file.parent)


@pytest.mark.parametrize("key", ["format", "schema_version"])
def test_another_versions_baseline_is_refused_by_name(tmp_path: Path, key: str) -> None:
    file = _accept(tmp_path) / "baseline.json"
    manifest = json.loads(file.read_text())
    file.write_text(json.dumps({**manifest, key: 99, "made_by": "twicing-bench 9.9"}))
    with pytest.raises(UserError, match=r"twicing-bench 9\.9 .*99"):
        load_baseline(file.parent)


def test_a_baseline_of_an_earlier_schema_names_the_version_that_reads_it(tmp_path: Path) -> None:
    file = _accept(tmp_path) / "baseline.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "schema_version": 2}))
    with pytest.raises(UserError, match="record schema 2") as caught:
        load_baseline(file.parent)
    assert "Compare with twicing-bench 0.1," in caught.value.hint


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "baseline.json").write_text(text)
    with pytest.raises(UserError):
        load_baseline(tmp_path)


def test_a_folder_without_a_baseline_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a baseline") as caught:
        load_baseline(tmp_path)
    assert "baseline accept" in caught.value.hint
