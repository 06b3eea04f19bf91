"""Image folders: what is not as it has to be is said before hours are spent, or counted and listed."""

import shutil

import pytest
from PIL import Image
from safetensors import safe_open
from typer.testing import CliRunner

from robustbench_twicing.catalog.locate import definitions
from robustbench_twicing.cli.app import app
from robustbench_twicing.data.training import training_folder
from robustbench_twicing.errors import UserError
from robustbench_twicing.models.build import load_model, new_network
from robustbench_twicing.spec.models import ModelSpec
from robustbench_twicing.train.folder import augmentation_of
from robustbench_twicing.train.loop import train
from tests.fake_trackers import fake_trackers
from tests.train.small import MODEL, small_job, small_recipe, write_pictures


def test_a_folder_that_is_no_data_set_to_train_on_is_refused(tmp_path):
    root = write_pictures(tmp_path / "data", per_class=1)
    with pytest.raises(UserError, match="No folder"):
        training_folder(tmp_path / "nowhere")
    with pytest.raises(UserError, match="has no folder train/ and no folder val/; it has dark, light"):
        training_folder(root / "train")
    (root / "val" / "light").rename(root / "val" / "bright")
    with pytest.raises(UserError, match=r"differ: 1 only in train/ \(light\), 1 only in val/ \(bright\)"):
        training_folder(root)
    shutil.rmtree(root / "val")
    with pytest.raises(UserError, match="has no folder val/; it has train"):
        training_folder(root)
    shutil.copytree(root / "train", root / "val")
    (root / "train" / "dark" / "0.jpg").unlink()
    with pytest.raises(UserError, match=r"no image in 1 class folder\(s\): dark"):
        training_folder(root)


def test_images_that_cannot_be_read_are_replaced_counted_and_listed(tmp_path):
    root = write_pictures(tmp_path)
    (root / "train" / "dark" / "3.jpg").write_bytes(b"\xff\xd8\xff broken")
    (root / "val" / "light" / "0.jpg").write_bytes(b"")
    outcome = train(small_job(root, augmentation={"repeats": 1}))
    assert [line.partition(": ")[0] for line in outcome.unreadable] == [
        str(root / "train" / "dark" / "3.jpg"),
        str(root / "val" / "light" / "0.jpg"),
    ]
    assert outcome.test_correct <= 3


def test_the_command_trains_says_what_it_did_and_keeps_what_is_finished(tmp_path, monkeypatch):
    kept = fake_trackers(monkeypatch)
    root = write_pictures(tmp_path / "data")
    recipe = tmp_path / "mine.toml"
    text = (definitions("recipes") / "tiny.toml").read_text("utf-8")
    recipe.write_text(text.replace("batch = 16", "batch = 8"))
    out = tmp_path / "x.safetensors"
    options = ["--data-dir", str(root), "--data", "noise", "--recipe", str(recipe), "--out", str(out), "--workers", "0"]
    command = ["train", "--model", MODEL, *options, "--device", "cpu"]
    tried = CliRunner().invoke(app, [*command, "--dry-run"])
    assert tried.exit_code == 0, tried.output
    assert "6 updates of 8 images in micro-batches of 8, 2 epochs" in tried.output
    assert not out.exists()
    result = CliRunner().invoke(app, [*command, "--log", "kept", "--log", "broken"])
    assert result.exit_code == 0, result.output
    assert "on 4 test images" in result.output
    assert "No longer logged to broken: ConnectionError: no network" in result.stderr
    (session,) = kept
    assert (session.whole, sorted(session.said), session.parameters["epochs"]) == (True, [1, 2], "2")
    assert session.said[2]["test/n"] == 4
    assert sorted(path.name for path in tmp_path.iterdir() if "x" in path.name) == ["x-ema.safetensors", out.name]
    with safe_open(out, "pt") as file:
        said = file.metadata()
    assert (said["data"], said["seed"], said["epochs"]) == ("noise", "0", "2")
    spec = ModelSpec(name="mine", architecture=MODEL.partition("+")[0], attention="twicing", weights=f"file:{out}")
    card = load_model(spec).card
    assert card.training_recipe == said["training_recipe"]
    assert card.training_recipe.startswith("mine-")
    again = CliRunner().invoke(app, command)
    assert "1 of 1 is trained already" in again.output
    other = CliRunner().invoke(app, [*command, "--seed", "1"])
    assert other.exit_code == 2
    assert "is not deit_digits_patch8_32+twicing trained with seed 1" in other.output


def test_augmentation_may_leave_nothing_of_a_picture():
    # RandAugment's draw of DeiT asks once in some hundred pictures for zero bits, at which timm and Pillow 13 give up.
    said = small_recipe(augmentation={"auto_augment": "rand-m10-mstd0-inc1-n15"}).augmentation
    transform = augmentation_of(said, new_network("deit_digits_patch8_32"))
    parts = [op for part in transform.transforms for op in getattr(part, "ops", ())]
    picture = Image.new("RGB", (40, 40), (200, 100, 50))
    results = [op(picture) for op in parts for _ in range(8)]
    assert len(parts) == 15
    assert Image.new("RGB", (40, 40)).tobytes() in [result.tobytes() for result in results]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--data", "imagenet"], "Where does 'imagenet' lie?"),
        (["--recipe", "finetune"], "goes on from weights"),
        (["--recipe", "deit"], "the digits lie in memory"),
        (["--adversarial", "pgd-2"], "go together"),
    ],
)
def test_what_does_not_go_together_is_said(options, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["train", "--model", "deit", *options])
    assert result.exit_code == 2
    assert says in result.output
