"""`twicing-bench attack` through the door users use."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from robustbench_twicing import load_run
from robustbench_twicing.cli.app import app
from robustbench_twicing.results.used import Preflight

SMALL = ["--attack", "fgsm", "--limit", "20", "--quiet"]

CHEAP = """
title = "As `standard`, with a cheap SPSA that is still dear enough to be cut into shards of 8"
source = "this test"
default_attacks = ["fgsm", "pgd", "spsa"]
rules = { space = "pixel", clip = true, labels = "true", iterate = "best" }
[attacks.fgsm]
algorithm = "fgsm"
[attacks.pgd]
algorithm = "pgd"
steps = 10
step_size = "0.25 eps"
[attacks.spsa]
algorithm = "spsa"
steps = 32
samples = 8
probe_distance = "0.5 eps"
step_size = "0.25 eps"
"""


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cheap.toml").write_text(CHEAP)


def _attack(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["attack", *arguments], catch_exceptions=False)


def _summary(*arguments: str) -> dict[str, Any]:
    result = _attack(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_the_default_table_has_every_row_and_says_what_it_means() -> None:
    result = _attack("--model", "deit-tw", "--limit", "2", "--quiet")
    assert result.exit_code == 0, result.output
    for word in ("clean", "fgsm-linf-1/255", "pgd-linf-1/255", "spsa-linf-1/255"):
        assert word in result.stdout
    for word in ("pixel space", "L∞ ≤ 1/255", "true labels", "best iterate", "seed 0", "cpu", "deit_digits_patch8_32"):
        assert word in result.stdout.replace("\n", " ")
    assert "Run folder: results/runs/digits-standard-" in result.stdout


def test_two_models_and_two_eps_give_a_row_each() -> None:
    models = ["--model", "deit", "--model", "deit-tw"]
    summary = _summary(*models, "--eps", "1/255", "--eps", "8/255", "--attack", "pgd", "--limit", "30", "--quiet")
    assert [(row["model"], row["threat"]) for row in summary["rows"]] == [
        (model, threat) for model in ("deit", "deit-tw") for threat in ("clean", "pgd-linf-1/255", "pgd-linf-8/255")
    ]
    assert summary["models"]["deit"]["attention"] == "softmax"
    assert summary["models"]["deit-tw"]["attention"] == "twicing"
    for row in summary["rows"]:
        assert row["n"] == 30
        assert row["ci_low"] <= row["accuracy"] <= row["ci_high"]
        assert row["drop"] == pytest.approx(row["accuracy"] - row["clean_accuracy"])


def test_methods_of_one_models_weights_stand_side_by_side() -> None:
    models = ["deit", "deit+twicing(0.5)@last3", "deit+twicing(1)@0,1@mine", "deit+twicing"]
    options = [part for model in models for part in ("--model", model)]
    summary = _summary(*options, "--attack", "fgsm", "--limit", "6", "--quiet")
    names = ["deit", "deit+twicing(0.5)@last3@drop-in", "deit+twicing(1)@0,1@mine", "deit+twicing@drop-in"]
    found = {row["model"]: row["attention"] for row in summary["rows"]}
    assert found == dict(zip(names, ["softmax", "twicing(0.5)@3,4,5", "twicing@0,1", "twicing"], strict=True))
    assert {row["weights_hash"] for row in summary["rows"]} == {summary["rows"][0]["weights_hash"]}
    records = pd.concat(pd.read_parquet(file) for file in Path(summary["run"]).glob("records/*/*.parquet"))
    assert set(records["attention"]) == set(found.values())
    assert set(zip(records["training_recipe"], records["training_seed"], strict=True)) == {("", 0)}
    margins = records[records["threat"] == "clean"].groupby("model")["margin"].sum()
    assert margins.nunique() == len(models)


@pytest.mark.dear
def test_batch_size_changes_no_draw_and_no_prediction() -> None:
    """Predictions agree exactly and margins within float noise.

    The bound: chunks of another size sum in another order, about 1e-6 on logits of size 10; a sign step that flips on
    such noise moves one pixel by an eps/8, so a margin may move by a little more, never by 1e-3 at eps 1/255.
    """
    frames = []
    for size in ("7", "64"):
        models = ("--model", "deit", "--model", "deit-tw")
        settings = ("--protocol", "cheap.toml", "--limit", "12", "--batch-size", size)
        summary = _summary(*models, *settings, "--out", f"run-{size}", "--quiet")
        frames.append(pd.concat(pd.read_parquet(f) for f in sorted(Path(summary["run"]).glob("records/*/*.parquet"))))
    one, other = (frame.sort_values(["model", "threat", "sample_id"]).reset_index(drop=True) for frame in frames)
    assert (one["prediction"] == other["prediction"]).all()
    assert (one["correct"] == other["correct"]).all()
    assert (one["margin"] - other["margin"]).abs().max() < 1e-3


def test_the_same_command_again_reads_what_is_there() -> None:
    first = _summary("--model", "deit", *SMALL)
    files = {file: file.stat().st_mtime_ns for file in Path(first["run"]).glob("records/*/*.parquet")}
    assert _summary("--model", "deit", *SMALL)["rows"] == first["rows"]
    assert {file: file.stat().st_mtime_ns for file in Path(first["run"]).glob("records/*/*.parquet")} == files


@pytest.mark.dear
def test_a_killed_run_continues_to_the_same_summary(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "robustbench_twicing", "attack", "--model", "deit", "--quiet"]
    command += ["--protocol", "cheap.toml", "--limit", "17"]
    killed = subprocess.Popen([*command, "--out", "killed"], cwd=tmp_path, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("killed/records/*spsa*/*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed" / "summary.csv").exists()
    subprocess.run([*command, "--out", "killed"], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    subprocess.run([*command, "--out", "whole"], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    assert (tmp_path / "killed" / "summary.csv").read_bytes() == (tmp_path / "whole" / "summary.csv").read_bytes()


def test_ctrl_c_keeps_finished_cells_and_exits_130(tmp_path: Path) -> None:
    # Whoever starts the tests in the background passes on that Ctrl-C is ignored.
    start = "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    start += "runpy.run_module('robustbench_twicing', run_name='__main__')"
    command = [sys.executable, "-c", start, "attack", "--model", "deit", "--quiet", "--out", "run"]
    command += ["--protocol", "cheap.toml"]
    with subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("run/records/*pgd*/*.parquet")) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Interrupted" in said
    assert "Traceback" not in said
    assert list(tmp_path.glob("run/records/*fgsm*/*.parquet"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model", "deit", "--eps", "8"], "8/255"),
        (["--model", "deit", "--eps", "1/0"], "divides by zero"),
        (["--model", "deit", "--eps=-1/255"], "negative"),
        (["--model", "deit", "--eps", "abc"], "not a number"),
        (["--model", "diet"], "deit"),
        (["--model", "deit", "--attack", "pdg"], "pgd"),
        (["--model", "deit", "--protocol", "standart"], "standard"),
        (["--model", "deit", "--data", "digit"], "digits"),
        (["--model", "deit=nowhere.pth"], "nowhere.pth"),
        (["--model", "deit@"], "no label behind the @"),
        (["--model", "deit", "--out", ""], "the name is empty"),
        (["--model", "deit="], "names no checkpoint"),  # a shell variable that is not set
        (["--model", "deit", "--engine", "other"], "torchattacks"),
        (["--model", "deit", "--model", "deit"], "'deit' is given twice"),
        (["--model", "deit", "--device", "tpu"], "cuda"),
        (["--model", "deit", "--limit", "0"], "limit"),
        ([], "--model"),
    ],
)
def test_bad_input_is_explained_with_exit_2_and_no_traceback(arguments: list[str], says: str) -> None:
    result = _attack(*arguments)
    assert result.exit_code == 2
    assert says in result.output
    assert "Traceback" not in result.output
    assert not Path("results").exists()


def test_cuda_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = _attack("--model", "deit", "--device", "cuda")
    assert result.exit_code == 2
    assert "finds 0 CUDA device" in result.output


def test_an_output_folder_with_other_settings_is_refused_and_kept() -> None:
    _summary("--model", "deit", *SMALL, "--out", "run")
    before = Path("run/run.json").read_bytes()
    result = _attack("--model", "deit", *SMALL, "--seed", "1", "--out", "run")
    assert result.exit_code == 2
    assert "seed differ" in result.output
    assert Path("run/run.json").read_bytes() == before


@pytest.mark.skipif(
    os.geteuid() == 0, reason="root may write anywhere; tests/results/test_store.py injects the refusal"
)
def test_a_read_only_folder_is_explained(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    result = _attack("--model", "deit", *SMALL)
    tmp_path.chmod(0o755)
    assert result.exit_code == 2
    assert "--out" in result.output


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("title = ", "not valid TOML"),
        ("colour = 'red'", "colour"),
    ],
)
def test_a_wrong_protocol_file_is_explained(text: str, says: str) -> None:
    Path("mine.toml").write_text(text)
    result = _attack("--model", "deit", "--protocol", "mine.toml")
    assert result.exit_code == 2
    assert says in result.output
    assert "mine.toml" in result.output


def test_the_worst_case_row_counts_what_no_attack_breaks() -> None:
    attacks = ["--attack", "fgsm", "--attack", "pgd", "--eps", "8/255", "--limit", "20", "--quiet"]
    summary = _summary("--model", "deit", *attacks, "--worst-case", "--protocol", "cheap.toml")
    files = Path(summary["run"]).glob("records/*/*.parquet")
    right = pd.concat(pd.read_parquet(f) for f in files).pivot(index="sample_id", columns="threat", values="correct")
    both = right["fgsm-linf-8/255"] & right["pgd-linf-8/255"]
    assert (right["worst-case-linf-8/255"] == both).all()
    assert not both.all()


def test_a_transfer_says_where_the_images_come_from() -> None:
    summary = _summary("--model", "deit-tw", "--source-model", "deit", *SMALL)
    assert [row["threat"] for row in summary["rows"]] == ["clean", "fgsm-linf-1/255-from-deit"]


def test_a_skipped_preflight_is_recorded_and_said() -> None:
    summary = _summary("--model", "deit", *SMALL, "--no-preflight")
    assert load_run(summary["run"]).manifest.preflight == Preflight(ran=False)
    assert "preflight check was off" in CliRunner().invoke(app, ["attack", "--model", "deit", *SMALL]).output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--attack", "fgsm", "--worst-case"], "needs two attacks or more"),
        (["--precision", "float8"], "Unknown precision 'float8'"),
        (["--attention-path", "sideways"], "Unknown attention path 'sideways'"),
        (["--protocol", "paper", "--eight-bit"], "for which rounding to 8 bits means nothing"),
        (["--protocol", "paper", "--worst-case"], "has no worst case"),
    ],
)
def test_options_that_cannot_be_had_say_what_can(arguments: list[str], says: str) -> None:
    result = CliRunner().invoke(app, ["attack", "--model", "deit", "--limit", "5", "--quiet", *arguments])
    assert result.exit_code == 2
    assert says in result.output
