"""Plans from the first line to the gate, through the door users use. Few samples and cheap attacks only."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from typer.testing import CliRunner

from robustbench_twicing.catalog.locate import package_file
from robustbench_twicing.cli.app import app
from robustbench_twicing.results.store import RunFolder
from tests.records_builder import records, run_folder

PLAN = """
models = ["deit"]
limit = 60
[[attacks]]
names = ["fgsm"]
eps = ["1/255"]
[gate]
tolerance = 0.1
"""


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _call(*arguments: str, code: int = 0) -> Any:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def _run(plan: str, *arguments: str) -> dict[str, Any]:
    return json.loads(_call("run", plan, "--quiet", "--json", *arguments).stdout)


def _shards(folder: str | Path) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in sorted(Path(folder).glob("records/*/*.parquet"))}


def test_a_plan_grows_and_only_the_difference_is_computed() -> None:
    Path("p.toml").write_text(PLAN)
    _run("p.toml", "--out", "run")
    before, manifest = _shards("run"), json.loads(Path("run/run.json").read_text())
    assert len(before) == 2

    again = _run("p.toml", "--out", "run")  # finished: nothing is touched, nor is what is said about the run
    assert _shards("run") == before
    assert json.loads(Path("run/run.json").read_text()) == manifest

    Path("p.toml").write_text(
        PLAN.replace('["1/255"]', '["1/255", "2/255"]').replace('["deit"]', '["deit", "deit-tw"]')
    )
    larger = _run("p.toml", "--out", "run")
    assert len(larger["rows"]) == 6
    after = _shards("run")
    assert len(after) == 6
    assert {file: after[file] for file in before} == before
    assert larger["rows"][:2] == again["rows"]
    assert json.loads(Path("run/run.json").read_text())["started"] == manifest["started"]

    Path("p.toml").write_text(PLAN)
    refused = _call("run", "p.toml", "--out", "run", code=2)
    assert "model deit-tw (not in the plan)" in refused.output


def test_a_plan_says_how_it_is_computed_and_where_its_run_goes_unless_an_option_does() -> None:
    Path("sub").mkdir()
    Path("sub/p.toml").write_text(
        PLAN.replace("60", "2") + '[means]\nbatch_size = 5\nout = "here"\npreflight = false\n'
    )
    assert _run("sub/p.toml")["run"] == "sub/here"
    manifest = json.loads(Path("sub/here/run.json").read_text())
    assert manifest["means"]["batch_sizes"] == {"deit": 5}
    assert manifest["preflight"]["ran"] is False
    assert "Baseline" in _call("baseline", "accept", "sub/p.toml", "--why", "x").output
    assert _run("sub/p.toml", "--batch-size", "7", "--preflight", "--out", "there")["run"] == "there"
    manifest = json.loads(Path("there/run.json").read_text())
    assert manifest["means"]["batch_sizes"] == {"deit": 7}
    assert manifest["preflight"]["ran"] is True


def test_a_damaged_shard_is_computed_again_and_said_aloud() -> None:
    Path("p.toml").write_text(PLAN)
    rows = _run("p.toml")["rows"]
    (run,) = Path("results/runs").iterdir()
    victim = next(iter(_shards(run)))
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    again = _call("run", "p.toml", "--quiet", "--json")
    assert "damaged and is computed again" in again.stderr
    assert json.loads(again.stdout)["rows"] == rows
    shown = _call("cache").output
    assert "stray" in shown.lower()
    assert "removed 1 file" in _call("cache", "--prune").output
    assert "Nothing to remove" in _call("cache", "--prune").output


def test_a_full_disk_keeps_what_is_finished_and_the_same_command_continues(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("p.toml").write_text(PLAN)
    whole = _run("p.toml", "--out", "whole")["rows"]
    kept, real = [], os.fsync

    def full_after_one_shard(handle: int) -> None:
        if kept:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)
        kept.extend(Path("run").glob("records/*/.*.part"))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_after_one_shard)
        refused = _call("run", "p.toml", "--quiet", "--out", "run", code=2)
    assert "No space left" in refused.output
    assert len(_shards("run")) == 1
    assert json.loads(Path("run/run.json").read_text())["status"] == "running"
    assert _run("p.toml", "--out", "run")["rows"] == whole


def test_a_run_that_is_continued_under_other_conditions_says_which() -> None:
    Path("p.toml").write_text(PLAN)
    _run("p.toml", "--out", "run")
    manifest = json.loads(Path("run/run.json").read_text())
    manifest["made_by"][0] |= {"code": "0f3a", "device": "NVIDIA H100"}
    manifest["made_by"][0]["versions"]["torch"] = "1.0"
    Path("run/run.json").write_text(json.dumps(manifest))
    shown = _call("run", "p.toml", "--quiet", "--out", "run").stderr
    assert "made under other conditions: torch 1.0 → " in shown
    assert "code 0f3a → " in shown
    assert "device NVIDIA H100 → cpu" in shown
    assert "--fresh" in shown
    assert len(json.loads(Path("run/run.json").read_text())["made_by"]) == 1  # nothing is computed
    next(iter(_shards("run"))).unlink()
    assert "different conditions: torch 1.0 → " in _call("run", "p.toml", "--quiet", "--out", "run").stderr
    assert len(json.loads(Path("run/run.json").read_text())["made_by"]) == 2


def test_a_finished_run_is_computed_anew_on_demand_and_its_old_records_stay_until_then(monkeypatch) -> None:
    Path("p.toml").write_text(PLAN)
    rows = _run("p.toml", "--out", "run")["rows"]
    before = {file.name: file.stat().st_mtime_ns for file in _shards("run")}
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "keep", _stop)
        _call("run", "p.toml", "--quiet", "--out", "run", "--fresh", code=130)
    assert len(list(Path("run").glob("records/*/*.replaced"))) == len(before)
    assert _run("p.toml", "--out", "run", "--fresh")["rows"] == rows
    assert not list(Path("run").glob("records/*/*.replaced"))
    after = {file.name: file.stat().st_mtime_ns for file in _shards("run")}
    assert len(after) == len(before)
    assert min(after.values()) > max(before.values())


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


def test_another_run_under_results_gives_what_it_finished_unless_everything_is_to_be_fresh() -> None:
    Path("p.toml").write_text(PLAN)
    rows = _run("p.toml")["rows"]
    Path("q.toml").write_text('extends = "p.toml"\nmodels = ["deit", "deit-tw"]\n')
    taken = _call("run", "q.toml", "--quiet", "--json")
    assert "2 shard(s) were taken over from the run p-" in taken.stderr
    assert json.loads(taken.stdout)["rows"][:2] == rows
    fresh = _call("run", "p.toml", "--quiet", "--json", "--fresh", "--out", "fresh")
    assert "taken over" not in fresh.stderr
    assert json.loads(fresh.stdout)["rows"] == rows


def test_a_dry_run_counts_what_is_left_and_writes_nothing() -> None:
    Path("p.toml").write_text(PLAN)
    cost = json.loads(_call("run", "p.toml", "--dry-run", "--json").stdout)
    assert [(cell["left"], cell["forwards"], cell["backwards"]) for cell in cost["cells"]] == [
        (60, 60, 0),
        (60, 120, 60),
    ]
    assert cost["seconds"] > 0
    assert cost["size"] > 0
    assert not Path("results").exists()
    _run("p.toml")
    cost = json.loads(_call("run", "p.toml", "--dry-run", "--json").stdout)
    assert [cell["left"] for cell in cost["cells"]] == [0, 0]
    assert cost["size"] == 0
    assert "0 of 2 cells" in _call("run", "p.toml", "--dry-run").output


def _checkpoint(path: str, noise: float) -> None:
    """The embedded weights of deit, with normal noise on each weight, relative to the spread of its tensor."""
    with safe_open(package_file("weights/deit-digits.safetensors"), framework="pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    generator = torch.Generator().manual_seed(0)
    for name, tensor in weights.items():
        spread = tensor.float().std() if tensor.numel() > 1 else tensor.float().abs().max()
        change = noise * spread * torch.randn(tensor.shape, generator=generator)
        weights[name] = (tensor.float() + change).to(tensor.dtype)
    save_file(weights, path, metadata)


def test_the_gate_passes_the_same_model_and_catches_perturbed_weights() -> None:
    Path("p.toml").write_text(PLAN.replace('["deit"]', '["deit=weights.safetensors"]'))
    _checkpoint("weights.safetensors", noise=0.0)
    _run("p.toml")
    accepted = _call("baseline", "accept", "p.toml", "--why", "first night", "--who", "ada").output
    assert "Baseline: results/baselines/p" in accepted
    assert "ada" in _call("baseline", "show", "results/baselines/p").output
    passed = _call("gate", "p.toml", "--baseline", "results/baselines/p")
    assert "PASS: 2 passed" in passed.stdout

    _checkpoint("weights.safetensors", noise=1.0)  # another night, the same file name
    _run("p.toml")
    assert len(list(Path("results/runs").iterdir())) == 2
    files = ["--junit", "out/gate.xml", "--markdown", "out/gate.md"]
    failed = _call("gate", "p.toml", "--baseline", "results/baselines/p", "--json", *files, code=3)
    verdict = json.loads(failed.stdout)
    assert (verdict["verdict"], verdict["exit_code"]) == ("regressed", 3)
    assert verdict["accepted"]["who"] == "ada"
    assert 'failures="2"' in Path("out/gate.xml").read_text()
    assert Path("out/gate.md").read_text().startswith("## REGRESSED: 2 regressed")

    nights = json.loads(_call("history", "--json", "--threat", "clean").stdout)
    assert [len(line["points"]) for line in nights] == [2]
    runs = sorted(map(str, Path("results/runs").iterdir()))
    compared = json.loads(_call("compare", *runs, "--json").stdout)
    assert {row["verdict"] for row in compared["rows"]} <= {"better", "worse"}


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        (["p.toml", "nowhere"], "There is no run 'nowhere'"),
        (["p.toml", "p.toml", "p.toml"], "Cannot compare 3 runs"),
        (["p.toml"], "nothing to compare deit with"),
        (["deit", "deit-tv", "--run", "p.toml"], "Unknown model 'deit-tv'"),
        (["p.toml", "q.toml"], "The runs share no model: deit | deit-tw, deit-tw-last3"),
    ],
)
def test_compare_refuses_before_it_carries_a_plan_out(runs, message) -> None:
    Path("p.toml").write_text(PLAN)
    Path("q.toml").write_text(PLAN.replace('["deit"]', '["deit-tw", "deit-tw-last3"]'))
    assert message in " ".join(_call("compare", *runs, code=2).output.split())
    assert not Path("results").exists()


def test_compare_takes_a_plan_and_carries_it_out_first() -> None:
    Path("p.toml").write_text(PLAN.replace('["deit"]', '["deit", "deit-tw"]').replace("60", "20"))
    found = json.loads(_call("compare", "p.toml", "--quiet", "--json", "--flips").stdout)
    assert [(row["threat"], row["n"]) for row in found["rows"]] == [("clean", 20), ("fgsm-linf-1/255", 20)]
    assert all(len(row["flips"]) == row["lost"] + row["gained"] for row in found["rows"])
    by_name = json.loads(_call("compare", "deit", "deit-tw", "--run", "p.toml", "--json", "--flips").stdout)
    assert by_name == found
    _call("compare", "p.toml", "p.toml", "--json")


def _begin(*arguments: str) -> tuple["subprocess.Popen[bytes]", float]:
    """A run in a process of its own, and when its work began."""
    command = [sys.executable, "-m", "robustbench_twicing", "run", "p.toml", "--fresh", "--quiet", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    manifest, old = Path(arguments[-1], "run.json"), time.time_ns()
    while process.poll() is None and not (manifest.exists() and manifest.stat().st_mtime_ns > old):
        time.sleep(0.01)
    return process, time.monotonic()


@pytest.mark.dear
@pytest.mark.slow
def test_killed_at_random_moments_a_run_ends_as_if_it_had_not_been() -> None:
    """A seeded handful; benchmarks/kill_storm.py does fifty."""
    Path("p.toml").write_text(PLAN.replace("limit = 60", "").replace('["deit"]', '["deit", "deit-tw"]'))
    process, began = _begin("--out", "whole")
    assert process.wait() == 0
    duration = time.monotonic() - began
    generator, killed = random.Random(20261123), 0
    for _ in range(3):
        process, _ = _begin("--out", "killed")
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=duration * generator.uniform(0.0, 0.5))
        process.kill()  # does nothing if the run has come to its end by itself
        killed += process.wait() == -signal.SIGKILL
    assert killed
    _run("p.toml", "--out", "killed", "--fresh")
    assert Path("killed/summary.csv").read_bytes() == Path("whole/summary.csv").read_bytes()
    records = pd.concat([pd.read_parquet(file) for file in _shards("killed")])
    assert not records.duplicated(["model", "threat", "sample_id"]).any()
    assert len(records) == 2 * 2 * 597


@pytest.mark.parametrize("harm", ["cut", "lost"])
def test_no_verdict_is_given_on_a_run_that_lacks_a_shard(harm: str) -> None:
    """It would be one on other samples or cells than everyone believes."""
    frame = records({(model, "clean"): [True] * 40 + [False] * 2 for model in ("deit", "deit-tw")})
    run_folder(Path("results/runs/night"), frame)
    _call("baseline", "accept", "results/runs/night", "--to", "b", "--why", "x")
    file = next(iter(_shards("results/runs/night")))
    if harm == "cut":
        file.write_bytes(file.read_bytes()[:500])
    else:
        file.unlink()
    for command in (["compare"], ["gate", "--baseline", "b"], ["baseline", "accept", "--to", "c", "--why", "x"]):
        refused = _call(*command, "results/runs/night", code=2).output
        assert "lacks 1 of its shards:" in refused
        assert "is damaged" in refused if harm == "cut" else "is missing" in refused
    assert not Path("c").exists()


def test_altered_manifests_are_named() -> None:
    frame = records({(model, "clean"): [True] * 40 for model in ("deit", "deit-tw")})
    for place in ("whole", "results/runs/night"):
        run_folder(Path(place), frame)
    _call("baseline", "accept", "whole", "--to", "b", "--why", "x")
    for file, key in ((Path("results/runs/night/run.json"), "cells"), (Path("b/baseline.json"), "accepted")):
        content = json.loads(file.read_text())
        del content[key]
        file.write_text(json.dumps(content))
    assert "run.json was altered: it has no 'cells'" in _call("compare", "results/runs/night", code=2).output
    assert "baseline.json was altered: it has no 'accepted'" in _call("baseline", "show", "b", code=2).output
    assert "unreadable" in _call("cache").output


# --- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "nowhere.toml"], "No file nowhere.toml"),
        (["run", "nigthly"], "nightly"),
        (["run", "bad.toml", "--dry-run"], "line 1: models[0]"),
        (["plan", "check", "bad.toml"], "line 1: models[0]"),
        (["plan", "new", "bad.toml"], "exists"),
        (["plan", "new", "plan.yaml"], "TOML"),
        (["compare", "deit", "deit-tw"], "--run"),
        (["compare", "one"], "There is no run 'one'"),
        (["compare"], "Name two runs"),
        (["compare", "good.toml.bak", "--alpha", "2"], "alpha"),
        (["gate", "good.toml", "--baseline", "x"], "twicing-bench run good.toml"),
        (["baseline", "accept", "good.toml", "--why", "x"], "twicing-bench run good.toml"),
        (["baseline", "show", "."], "not a baseline"),
        (["history"], "no finished run"),
        (["run", "good.toml", "--device", "tpu"], "cuda"),
    ],
)
def test_bad_input_is_explained_with_exit_2_and_no_traceback(arguments: list[str], says: str) -> None:
    Path("bad.toml").write_text('models = ["diet"]\n')
    Path("good.toml").write_text('models = ["deit"]\n')
    result = CliRunner().invoke(app, arguments, catch_exceptions=False, env={"COLUMNS": "200"})
    assert result.exit_code == 2, result.output
    assert says in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["attack", "--model", "deit=LONG.pth"],
        ["attack", "--model", "deit", "--out", "LONG"],
        ["plan", "new", "LONG.toml"],
        ["compare", "LONG"],
        ["baseline", "accept", "run", "--why", "x", "--to", "LONG"],
        ["gate", "run", "--baseline", "LONG"],
        ["train", "--model", "deit", "--out", "file/below/w.safetensors"],
        ["data", "make-corrupted", "--suite", "digits-c", "-c", "fog", "--limit", "1", "--out", "LONG"],
        ["corrupt", "--model", "deit", "-c", "frost", "--frost-dir", "LONG"],
    ],
)
def test_what_a_file_system_refuses_is_no_traceback(arguments: list[str]) -> None:
    run_folder(Path("run"), records({("deit", "clean"): [True] * 40}))
    Path("file").touch()
    result = _call(*(word.replace("LONG", "x" * 300) for word in arguments), code=2)
    assert any(why in result.output for why in ("File name too long", "is not a folder"))


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "a file of ours")

    monkeypatch.setattr("robustbench_twicing.cli.plan.read_plan", broken)
    with pytest.raises(FileNotFoundError):
        CliRunner().invoke(app, ["plan", "check", "nightly"], catch_exceptions=False)


def test_a_new_plan_is_ready_to_run_and_explains_itself() -> None:
    assert "Wrote mine.toml" in _call("plan", "new", "mine.toml").output
    assert Path("mine.toml").read_text().count("#") > 15
    assert "18 cells" in _call("plan", "check", "mine.toml").output
