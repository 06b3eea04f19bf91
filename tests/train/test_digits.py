"""Training follows its seed and nothing else. That it learns is tested on the embedded weights."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from robustbench_twicing.catalog.recipes import training_recipe
from robustbench_twicing.errors import UserError
from robustbench_twicing.models.build import load_model
from robustbench_twicing.spec.models import ModelSpec
from robustbench_twicing.spec.training import Affine
from robustbench_twicing.train.digits import augment
from robustbench_twicing.train.job import Job
from robustbench_twicing.train.loop import train
from robustbench_twicing.train.several import Training, digits_job
from robustbench_twicing.train.weights import save_trained


def job(name: str, seed: int, epochs: int) -> Job:
    recipe = training_recipe("digits").model_copy(update={"epochs": epochs})
    return digits_job(Training(name, seed, Path("unused"), recipe))


def test_a_seed_gives_the_same_weights_again_and_global_state_stays():
    before, calls = torch.get_rng_state(), []
    few = {"batch": 300}  # four updates
    one = replace(job("deit-tw-last3", 1, 1), recipe=training_recipe("digits").model_copy(update={"epochs": 1, **few}))
    first = train(one, progress=calls.append)
    assert torch.equal(torch.get_rng_state(), before)
    assert [call.update for call in calls] == [1, 2, 3, 4]
    assert (calls[-1].epoch, calls[-1].loss) == (1, first.train_loss)
    torch.rand(5)
    again = train(one).weights
    assert all(torch.equal(first.weights[name], again[name]) for name in again)


def test_seeds_and_models_differ_in_what_they_should():
    untrained = [train(job(name, seed, 0)).weights for name, seed in (("deit", 0), ("deit-tw", 0), ("deit", 1))]
    # A baseline and its twicing model of one seed start from the same weights.
    assert all(torch.equal(untrained[0][name], untrained[1][name]) for name in untrained[0])
    assert not torch.equal(untrained[0]["pos_embed"], untrained[2]["pos_embed"])


def test_saved_weights_load_again_and_carry_what_made_them(tmp_path):
    trained = job("deit-tw", 3, 0)
    outcome = train(trained)
    path = tmp_path / "new" / "trained.safetensors"
    assert save_trained(path, trained, outcome) == [path]
    model = load_model(
        ModelSpec(name="mine", architecture="deit_digits_patch8_32", attention="twicing", weights=f"file:{path}")
    )
    assert all(torch.equal(tensor, outcome.weights[name]) for name, tensor in model.network.state_dict().items())
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert (model.card.training_recipe, model.card.training_seed) == (trained.statement, 3)
    assert metadata["attention"] == "twicing"
    assert metadata["seed"] == "3"
    assert metadata["clean_accuracy"].endswith(f"({outcome.test_correct}/597)")
    assert [entry.name for entry in path.parent.iterdir()] == ["trained.safetensors"]


def test_another_recipe_has_another_name():
    assert job("deit", 0, 100).statement == job("deit-tw", 7, 100).statement
    assert job("deit", 0, 12).statement != job("deit", 0, 100).statement


def test_augmentation_moves_images_a_little():
    said = training_recipe("digits").augmentation
    assert isinstance(said, Affine)
    images = torch.zeros(64, 3, 32, 32)
    images[:, :, 12:20, 12:20] = 1
    moved = augment(images, torch.rand(4, 64, generator=torch.Generator().manual_seed(0)), said)
    assert moved.min() >= 0
    assert moved.max() <= 1 + 1e-6  # bilinear weights sum to one up to float32 rounding
    coordinates = torch.arange(32.0)
    mass = moved[:, 0].sum(dim=(1, 2))
    across = (moved[:, 0].sum(dim=1) * coordinates).sum(dim=1) / mass
    # 8 % of 32 pixels, over a scale of at least 0.9, plus what turning about the middle (15.5) can do to it.
    assert (across - 15.5).abs().max() < 0.08 * 32 / 0.9 * 1.25
    assert across.std() > 0.5
    assert ((mass - 64).abs() / 64).max() < 0.1 * 2.5  # a scale of 0.9 to 1.1 changes areas by 0.81 to 1.21


def test_unknown_model():
    with pytest.raises(UserError, match="Unknown model 'deit-twice'"):
        job("deit-twice", 0, 0)
