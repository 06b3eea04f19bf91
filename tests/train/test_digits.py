"""Training follows its seed and nothing else. That it learns is tested on the embedded weights."""

import pytest
import torch
from safetensors import safe_open

from robustbench_twicing.errors import UserError
from robustbench_twicing.models.build import load_model
from robustbench_twicing.spec.models import ModelSpec
from robustbench_twicing.train.digits import augment, save_trained, train_digits, training_recipe


def test_a_seed_gives_the_same_weights_again_and_global_state_stays():
    before, calls = torch.get_rng_state(), []
    first, metrics = train_digits("deit-tw-last3", seed=1, epochs=1, progress=lambda *call: calls.append(call))
    assert torch.equal(torch.get_rng_state(), before)
    assert calls == [(1, 1, metrics.train_loss)]
    assert (metrics.train_images, metrics.test_images, metrics.epochs) == (1200, 597, 1)
    torch.rand(5)
    again, _ = train_digits("deit-tw-last3", seed=1, epochs=1)
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_seeds_and_models_differ_in_what_they_should(tmp_path):
    untrained = [train_digits(name, seed, epochs=0)[0] for name, seed in (("deit", 0), ("deit-tw", 0), ("deit", 1))]
    # A baseline and its twicing model of one seed start from the same weights.
    assert all(torch.equal(untrained[0][name], untrained[1][name]) for name in untrained[0])
    assert not torch.equal(untrained[0]["pos_embed"], untrained[2]["pos_embed"])


def test_saved_weights_load_again_and_carry_what_made_them(tmp_path):
    weights, metrics = train_digits("deit-tw", seed=3, epochs=0)
    path = tmp_path / "new" / "trained.safetensors"
    save_trained(path, weights, metrics)
    model = load_model(
        ModelSpec(name="mine", architecture="deit_digits_patch8_32", attention="twicing", weights=f"file:{path}")
    )
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.network.state_dict().items())
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    card = (model.card.training_recipe, model.card.training_seed)
    assert card == (training_recipe(0), 3)
    assert metadata["attention"] == "twicing"
    assert metadata["seed"] == "3"
    assert metadata["clean_accuracy"].endswith(f"({metrics.test_correct}/597)")
    assert [entry.name for entry in path.parent.iterdir()] == ["trained.safetensors"]


def test_another_recipe_has_another_name():
    assert training_recipe() == training_recipe(100)
    assert training_recipe(12) != training_recipe()


def test_augmentation_moves_images_a_little():
    images = torch.zeros(64, 3, 32, 32)
    images[:, :, 12:20, 12:20] = 1
    moved = augment(images, torch.Generator().manual_seed(0))
    assert torch.equal(moved, augment(images, torch.Generator().manual_seed(0)))
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
        train_digits("deit-twice", seed=0)
