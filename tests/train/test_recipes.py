"""Recipes are data: what ships is whole, and what is not said is refused."""

import pytest
from safetensors import safe_open

from robustbench_twicing.catalog.locate import definitions, package_file
from robustbench_twicing.catalog.recipes import recipe_names, training_recipe
from robustbench_twicing.errors import UserError
from robustbench_twicing.train.several import Training, digits_job


def test_the_recipes_that_ship_are_whole_and_each_is_another():
    found = {name: training_recipe(name) for name in recipe_names()}
    assert {"deit", "digits", "finetune", "small", "tiny"} <= set(found)
    assert len({recipe.hash for recipe in found.values()}) == len(found)
    # facebookresearch/deit main.py: 5e-4 for 512 images, scaled linearly; the rest as its defaults
    deit = found["deit"]
    assert (deit.epochs, deit.batch, deit.optimizer.learning_rate) == (300, 1024, 5e-4 * 1024 / 512)
    assert (deit.optimizer.weight_decay, deit.regularisation.drop_path, deit.average.decay) == (0.05, 0.1, 0.99996)
    readme = (definitions("recipes") / "README.md").read_text("utf-8")
    assert all(f"| {name} |" in readme for name in found)


def test_the_seeds_that_ship_state_the_recipe_that_digits_are_trained_by_today(tmp_path):
    job = digits_job(Training("deit", 0, tmp_path, training_recipe("digits")))
    with safe_open(package_file("weights/seeds/softmax-s0.safetensors"), "pt") as file:
        assert file.metadata()["training_recipe"] == job.statement


def test_what_is_not_said_or_wrong_is_refused_and_the_title_decides_nothing(tmp_path):
    text = (definitions("recipes") / "deit.toml").read_text("utf-8")
    own = tmp_path / "mine.toml"
    own.write_text(text.replace('title = "', 'title = "another: '))
    assert training_recipe(str(own)).hash == training_recipe("deit").hash
    assert training_recipe(str(own)).name == "mine"
    wrong = text.replace("flip = 0.5\n", "").replace("clip_norm = 0.0", "clip_norm = -1").replace("mixup =", "mix_up =")
    own.write_text(wrong)
    with pytest.raises(UserError) as raised:
        training_recipe(str(own))
    assert all(key in str(raised.value) for key in ("4 mistake(s)", "flip", "clip_norm", "mix_up", "mixup: Field"))
    with pytest.raises(UserError, match=r"Unknown recipe 'diet'.\nDid you mean deit"):
        training_recipe("diet")
