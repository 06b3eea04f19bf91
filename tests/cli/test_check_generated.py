"""`data check-generated`: the official files beside the generated ones, through the command line.

The official tree is written by `data make-corrupted`, and then some of its pictures are exchanged for those of another
class, so that what each suite must score is known.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from robustbench_twicing.catalog.suites import class_list
from robustbench_twicing.cli.app import app
from robustbench_twicing.data.decode import decode
from robustbench_twicing.data.transforms import prepared, stacked
from robustbench_twicing.engine.corruptions import corrupt
from robustbench_twicing.spec.models import Recipe
from tests.imagenet_trees import build_tree

SOME = ["-c", "brightness", "-c", "fog", "--severity", "1", "--severity", "3"]
PER_CLASS = 3


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with val/, official/ (two corruptions at two severities) and reader.safetensors."""
    root = tmp_path_factory.mktemp("trees")
    # Classes 9, 90 and 900: their blocks are blue, green and red.
    index = class_list("imagenet")
    planted = build_tree(root / "val", "imagenet", [index[label] for label in (9, 90, 900)], per_class=PER_CLASS)
    made = _call("data", "make-corrupted", "--data-dir", str(root / "val"), *SOME, "--out", str(root / "official"))
    assert made.stdout.startswith(f"{4 * len(planted)} pictures")
    _teach(root)
    return root


def _teach(root: Path) -> None:
    """DeiT-tiny with random blocks, and a head fitted to be right on every picture, read and generated."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = timm.create_model("deit_tiny_patch16_224").eval()
    recipe = Recipe(resize=256, crop=224, interpolation="bilinear")
    files = [*root.glob("val/*/*"), *root.glob("official/*/*/*/*")]
    pictures = stacked([prepared(decode(file.read_bytes()), recipe) for file in files])
    right = torch.tensor([class_list("imagenet").index(file.parent.name) for file in files])
    clean, labels = pictures[: 3 * PER_CLASS], right[: 3 * PER_CLASS]
    ids = [f"{file.parent.name}/{file.stem}" for file in files[: 3 * PER_CLASS]]
    made = [corrupt(clean, name, level, 0, ids, jpeg_quality=85) for name in ("fog", "brightness") for level in (1, 3)]
    pictures, right = torch.cat([pictures, *made]), torch.cat([right, labels.repeat(len(made))])
    mean, std = (torch.tensor(model.pretrained_cfg[name])[:, None, None] for name in ("mean", "std"))
    with torch.no_grad():
        seen = model.forward_head(model.forward_features((pictures - mean) / std), pre_logits=True).double()
        wanted = torch.nn.functional.one_hot(right, 1000).double()
        ridge = 1e-3 * torch.eye(seen.shape[1])
        model.head.weight.copy_(torch.linalg.solve(seen.T @ seen + ridge, seen.T @ wanted).T)
        model.head.bias.zero_()
        assert (model.head(seen.float()).argmax(dim=1) == right).all()
    save_file(model.state_dict(), root / "reader.safetensors")


def _call(*arguments: str, code: int = 0) -> Any:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False, env={"COLUMNS": "80"})
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def _check(root: Path, official: Path, *arguments: str, code: int = 0) -> Any:
    places = ["--data-dir", f"imagenet={root / 'val'}", "--data-dir", f"imagenet-c={official}"]
    model = f"deit={root / 'reader.safetensors'}"
    how = ["--batch-size", "8", "--quiet"]
    return _call("data", "check-generated", "--model", model, *places, *how, *arguments, code=code)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.dear
def test_the_same_files_score_the_same_and_exchanged_ones_are_found(trees: Path, tmp_path: Path) -> None:
    shutil.copytree(trees / "official", tmp_path / "c")
    folders = sorted((tmp_path / "c" / "fog" / "3").iterdir())
    files = [sorted(folder.iterdir()) for folder in folders]
    for mine, other in zip(files[0], files[1], strict=True):
        mine.write_bytes(other.read_bytes())  # a whole class shows another one

    rows = json.loads(_check(trees, tmp_path / "c", *SOME, "--json").stdout)
    parts = [(corruption, severity) for corruption in ("fog", "brightness") for severity in (1, 3)]
    assert {(row["corruption"], row["severity"]) for row in rows} == set(parts)
    for row in rows:
        assert (row["model"], row["n"]) == ("deit", 3 * PER_CLASS)
        assert row["low"] <= row["difference"] <= row["high"]
        assert row["difference"] == pytest.approx(row["generated"] - row["official"])
        if (row["corruption"], row["severity"]) == ("fog", 3):
            # Of this class the files are all wrong now; the generated ones are what they were.
            assert row["generated"] == 1
            assert row["official"] == pytest.approx(2 / 3)
        else:
            assert row["generated"] == row["official"] == 1
            assert row["low"] < 0 < row["high"]

    table = _check(trees, tmp_path / "c", *SOME).stdout
    assert "…" not in table
    assert max(len(line) for line in table.splitlines() if not line.startswith("Run folder")) <= 80
    assert "fog 3" in table
    assert "+33.3" in table


def test_only_photographs_in_both_are_compared_and_unreadable_ones_are_named(trees: Path, tmp_path: Path) -> None:
    shutil.copytree(trees / "official" / "fog", tmp_path / "c" / "fog")
    gone, broken, *_ = sorted((tmp_path / "c" / "fog" / "1").glob("*/*"))
    gone.unlink()
    broken.write_bytes(broken.read_bytes()[:300])
    result = _check(trees, tmp_path / "c", "-c", "fog", "--severity", "1", "--json", code=1)
    assert json.loads(result.stdout)[0]["n"] == 3 * PER_CLASS - 2
    assert broken.name in result.stderr
    _check(trees, tmp_path / "c", "-c", "fog", "--severity", "1", "--skip-bad")


def test_what_is_configured_counts(trees: Path, tmp_path: Path) -> None:
    Path("twicing-bench.toml").write_text(
        f'[data]\nimagenet = "{trees / "val"}"\nimagenet-c = "{trees / "official"}"\n'
        f'[models]\ndeit = "{trees / "reader.safetensors"}"\n[defaults]\nfrost-dir = "nowhere"\n'
    )
    some = ["-c", "fog", "--severity", "1", "--batch-size", "8"]
    rows = json.loads(_call("data", "check-generated", "-m", "deit", *some, "--quiet", "--json").stdout)
    assert rows[0]["generated"] == 1  # the taught weights, not the public ones
    frost = ["-c", "frost", "--severity", "1"]
    assert "nowhere" in _call("data", "make-corrupted", *frost, "--out", "made", code=2).output


# --- mistakes --------------------------------------------------------------------------------------------------------


def test_missing_severities_are_named_with_how_to_leave_them_out(trees: Path) -> None:
    refused = _check(trees, trees / "official", code=2).output
    assert "lacks 91 of 95" in refused
    assert "--corruption" in refused
    assert "fog/2" in _check(trees, trees / "official", "-c", "fog", code=2).output


def test_folders_without_a_common_image_are_refused_before_anything_is_computed(trees: Path, tmp_path: Path) -> None:
    build_tree(tmp_path / "val", "imagenet", ["n01496331"])
    shutil.copytree(trees / "official", tmp_path / "official")
    refused = _call(
        "data",
        "check-generated",
        "--model",
        f"deit={trees / 'reader.safetensors'}",
        *("--data-dir", f"imagenet={tmp_path / 'val'}", "--data-dir", f"imagenet-c={tmp_path / 'official'}"),
        *SOME,
        code=2,
    ).output
    assert "no image in common" in refused
    assert "n01496331/ILSVRC2012_val_" in refused
    assert not Path("results").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--data-dir", "imagenet=val", "--data-dir", "imagenet-c=val"], "expected folders such as gaussian_noise/1/n"),
        (["--data-dir", "imagenet=official", "--data-dir", "imagenet-c=official", *SOME], "is not suite 'imagenet'"),
        (["--data-dir", "imagenet=val", "--data-dir", "imagenet-c=nowhere"], "nowhere"),
        (["--data-dir", "imagenet=val"], "--data-dir imagenet-c="),
        (["--data-dir", "imagenet-c=official"], "--data-dir imagenet="),
        (["--data-dir", "val"], "--data-dir imagenet-c=val"),
        (["--data-dir", "imagenet=val", "--data-dir", "imagenet-c=official", "-c", "fgo"], "fog"),
        (["--data-dir", "imagenet=val", "--data-dir", "imagenet-c=official", "--severity", "6"], "1 (weakest)"),
    ],
)
def test_bad_input_is_explained_with_exit_2(
    trees: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    monkeypatch.chdir(trees)
    result = _call("data", "check-generated", "--model", "deit=reader.safetensors", *arguments, code=2)
    assert says in result.output
