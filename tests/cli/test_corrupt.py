"""Suites end to end: a model whose answers are known by construction scores what arithmetic says."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from robustbench_twicing import evaluate
from robustbench_twicing.api import Run
from robustbench_twicing.catalog.suites import class_list, suite
from robustbench_twicing.cli.app import app
from robustbench_twicing.errors import UserError
from robustbench_twicing.spec.corruptions import CORRUPTIONS
from robustbench_twicing.spec.suite import Part
from tests.imagenet_trees import LabelReader, build_tree

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _cli(*arguments: str) -> Any:
    return CliRunner().invoke(app, [*arguments], catch_exceptions=False)


def _read(suites: list[str], directories: dict[str, Path], **settings: Any) -> Run:
    return evaluate({"reader": LabelReader()}, suites=suites, directories=directories, **settings)


def _row(run: Run, threat: str) -> Any:
    return run.summary.set_index("threat").loc[threat]


def test_imagenet_a_is_scored_over_its_classes_and_over_all_with_its_clean_partner(tmp_path: Path) -> None:
    """Four classes, two images each. In -A the second image of each class shows another class of the mask, and one
    first image shows a number that no class of the mask has: only the mask brings the answer back to the label."""
    spec = suite("imagenet-a")
    mask, index = spec.mask, class_list("imagenet")
    labels = mask[10:14]
    outside = labels[0] - 1
    assert outside not in mask
    near = min(mask, key=lambda answer: (abs(answer - outside), answer))

    def shown(label: int, number: int, part: Part | None) -> int:
        if number == 1:
            return mask[50]
        return outside if label == labels[0] else label

    wnids = [index[label] for label in labels]
    build_tree(tmp_path / "a", "imagenet-a", wnids, per_class=2, shown=shown)
    build_tree(tmp_path / "val", "imagenet", [*wnids, "n01440764"], per_class=2)
    run = _read(["imagenet-a"], {"imagenet-a": tmp_path / "a", "imagenet": tmp_path / "val"})
    clean, shifted = _row(run, "clean[imagenet-a]"), _row(run, "imagenet-a")
    assert clean["n"] == 8  # n01440764 is no class of -A
    assert clean["accuracy"] == 1
    assert shifted["n"] == 8
    assert shifted["accuracy_unmasked"] == 3 / 8
    assert shifted["accuracy"] == (4 if near == labels[0] else 3) / 8
    assert shifted["drop"] == pytest.approx(shifted["accuracy"] - 1)


@pytest.mark.dear
def test_mce_on_the_whole_of_imagenet_c_is_what_arithmetic_says(tmp_path: Path) -> None:
    """Image k of four is wrong where k < severity - 1 (k < severity for fog): errors 0, 1/4, 2/4, 3/4, 1."""

    def wrong(part: Part) -> int:
        return min(4, part.severity if part.corruption == "fog" else part.severity - 1)

    def shown(label: int, number: int, part: Part | None) -> int:
        assert part is not None
        return label + 300 if number < wrong(part) else label

    common = suite("imagenet-c").common
    parts = suite("imagenet-c").parts(common)
    build_tree(tmp_path / "c", "imagenet-c", ["n01440764"], per_class=4, shown=shown, parts=parts, families=True)
    build_tree(tmp_path / "val", "imagenet", ["n01440764"], per_class=4)
    run = _read(["imagenet-c"], {"imagenet-c": tmp_path / "c", "imagenet": tmp_path / "val"}, corruptions=["common"])
    with (ROOT / "corruptions" / "alexnet-errors.csv").open(newline="") as file:
        alexnet = {(row["corruption"], int(row["severity"])): float(row["error"]) for row in csv.DictReader(file)}
    ratios, relative = [], []
    for name in common:
        ours = [wrong(Part(name, severity)) / 4 for severity in range(1, 6)]
        theirs = [alexnet[name, severity] for severity in range(1, 6)]
        ratios.append(sum(ours) / sum(theirs))
        relative.append(np.mean(ours) / (np.mean(theirs) - alexnet["clean", 0]))  # our clean error is 0
    figures = run.suites.set_index("suite").loc["imagenet-c"]
    assert figures["mce"] == pytest.approx(100 * np.mean(ratios))
    assert figures["relative_mce"] == pytest.approx(100 * np.mean(relative))
    assert figures["denominator"] == "AlexNet"
    assert _row(run, "imagenet-c:fog-2")["accuracy"] == 0.5
    assert _row(run, "imagenet-c:fog-2")["drop"] == -0.5


def test_mce_is_refused_with_a_severity_missing(tmp_path: Path) -> None:
    build_tree(tmp_path / "c", "imagenet-c", ["n01440764"], parts=[Part("fog", 1)])
    run = _read(["imagenet-c"], {"imagenet-c": tmp_path / "c"}, corruptions=["fog"], severities=[1])
    figures = run.suites.iloc[0]
    assert np.isnan(figures["mce"])
    assert "missing" in figures["note"]
    assert "clean" not in set(run.summary["threat"])  # no folder for the clean images was given


def test_outliers_are_told_from_clean_images_by_confidence(tmp_path: Path) -> None:
    build_tree(tmp_path / "o", "imagenet-o", per_class=2)
    build_tree(tmp_path / "val", "imagenet", class_list("imagenet-o")[:3], per_class=2)
    run = _read(["imagenet-o"], {"imagenet-o": tmp_path / "o", "imagenet": tmp_path / "val"})
    figures = run.suites.iloc[0]
    # The reader reads the same three classes in both, and is as sure of them, so confidence cannot tell the two apart.
    assert figures["auroc"] == 0.5
    assert np.isnan(figures["mce"])
    assert np.isnan(_row(run, "imagenet-o")["accuracy"])  # no answer to an outlier is right


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DeiT-tiny with random weights: where its answers lie does not matter."""
    path = tmp_path_factory.mktemp("weights") / "deit.safetensors"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_file(timm.create_model("deit_tiny_patch16_224").state_dict(), path)
    return path


def test_an_unreadable_image_fails_by_name_and_the_run_goes_on(tmp_path: Path, checkpoint: Path) -> None:
    planted = build_tree(tmp_path / "r", "imagenet-r", per_class=2)
    planted[0].path.write_bytes(planted[0].path.read_bytes()[:200])
    command = [
        "corrupt",
        "--model",
        f"deit-tw={checkpoint}",
        "--suite",
        "imagenet-r",
        "--data-dir",
        str(tmp_path / "r"),
    ]
    result = _cli(*command, "--quiet", "--json")
    assert result.exit_code == 1, result.output
    assert planted[0].path.name in result.stderr
    rows = json.loads(result.stdout)["rows"]
    assert [(row["n"], row["failed"]) for row in rows] == [(5, 1)]
    assert _cli(*command, "--quiet", "--skip-bad").exit_code == 0


@pytest.mark.parametrize("suite", ["imagenet-r", "imagenet-c-generated"])
def test_a_folder_without_a_readable_image_fails_by_name_only(tmp_path: Path, checkpoint: Path, suite: str) -> None:
    data = "imagenet-r" if suite == "imagenet-r" else "imagenet"
    for planted in build_tree(tmp_path / "r", data):
        planted.path.write_bytes(b"not an image")
    command = ["corrupt", "--model", f"deit={checkpoint}", "--suite", suite, "--data-dir", str(tmp_path / "r")]
    some = [] if suite == "imagenet-r" else ["-c", "fog", "--severity", "1"]
    result = _cli(*command, *some, "--batch-size", "4", "--quiet", "--json")
    assert result.exit_code == 1, result.output
    assert {(row["n"], row["failed"], row["accuracy"]) for row in json.loads(result.stdout)["rows"]} == {(0, 3, None)}
    assert result.stderr.count("failed: n0") == 3
    assert _cli(*command, *some, "--batch-size", "4", "--quiet").exit_code == 1  # the tables, too


def test_generated_imagenet_c_shares_samples_with_the_files_and_never_a_column(
    tmp_path: Path, checkpoint: Path
) -> None:
    build_tree(tmp_path / "val", "imagenet", per_class=2)
    made = tmp_path / "made"
    where = ["--data-dir", str(tmp_path / "val")]
    some = ["-c", "brightness", "--severity", "2"]
    assert _cli("data", "make-corrupted", *where, *some, "--out", str(made)).exit_code == 0
    files = sorted(made.glob("brightness/2/*/*.JPEG"))
    assert len(files) == 6
    with Image.open(files[0]) as picture:
        assert picture.size == (224, 224)
    places = {"imagenet": tmp_path / "val", "imagenet-c": made}
    settings = {"corruptions": ["brightness"], "severities": [2], "directories": places}
    run = evaluate({"reader": LabelReader()}, suites=["imagenet-c", "imagenet-c-generated"], **settings)
    by_suite = {suite: group for suite, group in run.records.groupby("suite") if suite}
    assert len(by_suite) == 2
    ids = [set(group["sample_id"]) for group in by_suite.values()]
    assert ids[0] == ids[1]
    hashes = [set(group["protocol_hash"]) for group in by_suite.values()]
    assert not hashes[0] & hashes[1]


@pytest.mark.dear
def test_digits_c_is_relative_to_the_baseline_and_says_so() -> None:
    result = _cli("corrupt", "--model", "deit", "--model", "deit-tw", "--limit", "4", "--quiet", "--json")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert len(summary["rows"]) == 2 * (1 + 5 * len(CORRUPTIONS))
    figures = {row["model"]: row for row in summary["suites"]}
    assert {row["denominator"] for row in figures.values()} == {"deit"}
    if figures["deit"]["mce"] is not None:  # None if the baseline makes no error at all under some corruption
        assert figures["deit"]["mce"] == pytest.approx(100)
    text = _cli("corrupt", "--model", "deit", "--model", "deit-tw", "--limit", "4", "--quiet").stdout
    assert "digits-c: corruptions computed in memory" in text.replace("\n", " ")


def test_data_check_says_what_is_wrong_by_exit_code(tmp_path: Path) -> None:
    build_tree(tmp_path / "a", "imagenet-a")
    result = _cli("data", "check", "imagenet-a", str(tmp_path / "a"), "--json")
    report = json.loads(result.stdout)
    assert result.exit_code == (0 if report["ok"] else 1)
    assert report["rows"][0]["images"] == 3
    assert _cli("data", "check", "imagenet-a", str(tmp_path)).exit_code in (0, 1)  # the folder above is found too
    (tmp_path / "empty").mkdir()
    wrong = _cli("data", "check", "imagenet-a", str(tmp_path / "empty"))
    assert wrong.exit_code == 2
    assert "n0" in wrong.output  # an example of what was expected


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--suite", "imagenet-z"], "imagenet"),
        (["--suite", "imagenet-a"], "--data-dir"),
        (["--corruption", "fgo"], "fog"),
        (["--severity", "6"], "1 (weakest) to 5"),
        (["--suite", "digits-c", "--suite", "imagenet-a"], "one after the other"),
    ],
)
def test_bad_input_is_explained(arguments: list[str], says: str) -> None:
    result = _cli("corrupt", "--model", "deit", *arguments, "--quiet")
    assert result.exit_code == 2
    assert says in result.output
    assert "Traceback" not in result.output


def test_a_model_with_other_classes_is_refused() -> None:
    with pytest.raises(UserError, match="7 classes"):
        evaluate({"mine": LabelReader(7)}, attacks=["fgsm"], limit=4)
