"""The gate through the command line: what changed, what is called how, and nights in a row."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from robustbench_twicing.cli.app import app
from robustbench_twicing.results.used import Maker
from robustbench_twicing.spec.policy import Policy
from tests.records_builder import records, run_folder

RUNS = Path("results/runs")
SURE, UNSURE = 600, 20
"""With so many images and no flip at all, a drop of one point can and cannot be ruled out."""


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _call(*arguments: str, code: int = 0) -> Any:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False, env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    return result


def _night(day: int, n: int = SURE, weights: str = "weights", data: str = "fingerprint", **manifest: Any) -> str:
    outcomes = {(name, "clean"): np.ones(n, dtype=bool) for name in ("deit", "deit-tw")}
    frame = records(outcomes, weights_hash=weights, data_fingerprint=data)
    settings = {"name": "nightly", "started": f"2026-11-{day:02}T02:00:00+00:00", **manifest}
    return str(run_folder(RUNS / f"night-{day:02}", frame, **settings))


def _accepted(n: int = SURE) -> None:
    _call("baseline", "accept", _night(1, n), "--why", "checked", "--who", "ada")


def test_the_first_lines_say_what_changed_since_the_baseline() -> None:
    _accepted()
    maker = Maker(code="1b2c", versions={"torch": "2.7"}, device="NVIDIA H100")
    versions = {"python": "3.11", "twicing-bench": "0.2.0", "torch": "2.7"}
    _night(2, weights="other", made_by=(maker,), versions=versions)
    lines = _call("gate", "latest", "--baseline", "nightly").stdout.splitlines()
    assert lines[:4] == [
        "Changed since the baseline: versions torch 2.6 → 2.7, twicing-bench 0.1.0 → 0.2.0.",
        "Changed since the baseline: code 0f3a → 1b2c.",
        "Changed since the baseline: device cpu → NVIDIA H100.",
        "Changed since the baseline: weights of deit weights → other, deit-tw weights → other.",
    ]
    found = json.loads(_call("gate", "latest", "--baseline", "nightly", "--json").stdout)["changes"]
    assert found[0] == {"kind": "version", "name": "torch", "before": "2.6", "now": "2.7"}


def test_other_data_than_the_baselines_are_not_judged_but_named() -> None:
    _accepted()
    _night(2, data="other")
    refused = _call("gate", "latest", "--baseline", "nightly", code=2).output
    assert refused.startswith("Error: 2 cell(s) were not run alike in the baseline and in this run.")
    assert refused.count("data_fingerprint: fingerprint | other") == 2


def test_a_night_like_the_baseline_says_that_nothing_changed() -> None:
    _accepted()
    _night(2)
    assert _call("gate", "latest", "--baseline", "nightly").stdout.startswith("Nothing but the numbers changed")


def test_a_baseline_is_found_by_the_name_that_it_was_given() -> None:
    _accepted()
    assert "by ada" in _call("baseline", "show", "nightly").stdout
    assert "PASS" in _call("gate", str(RUNS / "night-01"), "--baseline", "nightly").stdout
    Path("nightly").mkdir()  # is no baseline
    assert "PASS" in _call("gate", str(RUNS / "night-01"), "--baseline", "nightly").stdout
    assert "In results/baselines: nightly." in _call("gate", "latest", "--baseline", "nigthly", code=2).output


def test_latest_is_the_run_that_was_begun_last() -> None:
    assert "no run in results/runs yet" in _call("report", "latest", code=2).output
    _night(12)
    _night(3)
    (RUNS / "notes").mkdir()
    assert "Run folder: results/runs/night-12" in _call("report", "latest").stdout
    assert "deit-tw" in _call("compare", "latest").stdout
    assert "results/baselines/nightly" in _call("baseline", "accept", "latest", "--why", "x").stdout
    _night(13, status="running", finished=None)
    assert "night-13 is not finished" in _call("gate", "latest", "--baseline", "nightly", code=2).output


def test_inconclusive_exits_as_regressed_does_if_that_is_asked_for() -> None:
    _accepted(UNSURE)
    assert "INCONCLUSIVE: 2 inconclusive" in _call("gate", "latest", "--baseline", "nightly", code=4).stdout
    strict = _call("gate", "latest", "--baseline", "nightly", "--fail-on", "inconclusive", "--junit", "j.xml", code=3)
    assert "the gate fails on inconclusive: it exits as regressed does" in strict.stdout
    assert 'failures="2" errors="0"' in Path("j.xml").read_text()
    _night(1, UNSURE, gate=Policy(fail_on="inconclusive"))
    _call("gate", "latest", "--baseline", "nightly", code=3)
    _call("gate", "latest", "--baseline", "nightly", "--fail-on", "regressed", code=4)
    assert "regressed" in _call("gate", "latest", "--baseline", "nightly", "--fail-on", "never", code=2).output


def test_inconclusive_night_after_night_exits_as_regressed_does() -> None:
    _accepted(UNSURE)
    policy = Policy(inconclusive_nights=3)
    for day, code in ((2, 4), (3, 4), (4, 3), (5, 3)):
        _night(day, UNSURE, gate=policy)
        said = _call("gate", "latest", "--baseline", "nightly", code=code).stdout
    assert "inconclusive 3 nights in a row: it exits as regressed does" in said
    _night(6, UNSURE, gate=Policy(inconclusive_nights=None))
    _call("gate", "latest", "--baseline", "nightly", code=4)
    _night(7, UNSURE, gate=Policy(inconclusive_nights=3, tolerances={"*": 0.5}))
    _call("gate", "latest", "--baseline", "nightly")
    _night(8, UNSURE, name="weekly", gate=policy)  # of another plan
    _call("gate", "latest", "--baseline", "nightly", code=4)


def test_a_gate_that_can_never_pass_says_so_before_its_run_and_at_the_gate() -> None:
    Path("p.toml").write_text('models = ["deit"]\nlimit = 10\n[gate]\ntolerance = 0.15\n')
    line = "The gate can never pass deit:clean: 10 images rule out no drop of 15.0 points"
    assert line in _call("plan", "check", "p.toml").stdout
    assert line in _call("run", "p.toml", "--dry-run", "--quiet").stdout
    assert json.loads(_call("run", "p.toml", "--dry-run", "--json").stdout)["warnings"][0].startswith(line)
    assert line in " ".join(_call("run", "p.toml").stderr.split())
    assert line in " ".join(_call("run", "p.toml", "--quiet").output.split())
    _call("baseline", "accept", "p.toml", "--why", "x", "--who", "ada")
    said = json.loads(_call("gate", "p.toml", "--baseline", "p", "--json", code=4).stdout)
    assert "10 images cannot pass even if no answer changes, it takes 19" in said["cells"][0]["reason"]
