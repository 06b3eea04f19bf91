"""Training further: from weights, with its control, and stated."""

import pytest
import torch

from robustbench_twicing.catalog.arms_to_train import with_controls
from robustbench_twicing.catalog.locate import package_file
from robustbench_twicing.catalog.recipes import training_recipe
from robustbench_twicing.data.training import training_folder
from robustbench_twicing.errors import UserError
from robustbench_twicing.models.build import load_model
from robustbench_twicing.spec.models import ModelSpec
from robustbench_twicing.train.digits import DigitsData
from robustbench_twicing.train.folder import FolderData
from robustbench_twicing.train.in_turn import Begun, job_of, train_in_turn
from robustbench_twicing.train.job import ONE_CPU
from robustbench_twicing.train.parts import network_of, ramp_of
from tests.train.small import MODEL, small_job, small_recipe, write_pictures

PLAIN = str(package_file("weights/deit-digits.safetensors"))


def test_a_method_and_its_control_begin_with_the_same_weights_and_state_them(tmp_path):
    recipe = training_recipe("digits").model_copy(update={"epochs": 1, "batch": 600})
    models = with_controls(["deit+twicing"])
    assert models == ["deit+twicing", "deit+softmax"]
    jobs = [job_of(name, DigitsData(), recipe, 0, PLAIN) for name in models]
    begun = [Begun(job, tmp_path / f"{job.spec.name}.safetensors") for job in jobs]
    for one, _ in train_in_turn(begun, ONE_CPU):
        assert one.job.start.tensors.keys() == jobs[0].start.tensors.keys()
    untouched = load_model(ModelSpec(name="deit", architecture="deit_digits_patch8_32", weights=f"file:{PLAIN}"))
    cards = [
        load_model(
            ModelSpec(name=name, architecture="deit_digits_patch8_32", attention=name.partition("+")[2],
                      weights=f"file:{one.path}")
        ).card
        for name, one in zip(models, begun, strict=True)
    ]  # fmt: skip
    assert cards[0].training_recipe == cards[1].training_recipe
    assert cards[0].training_recipe.endswith(f".from-{untouched.card.weights_hash}")
    assert len({card.weights_hash for card in [*cards, untouched.card]}) == 3
    assert jobs[0].statement != job_of("deit+twicing", DigitsData(), recipe, 0).statement


def test_only_the_head_of_weights_for_other_classes_begins_at_random(tmp_path):
    data = FolderData("pictures", training_folder(write_pictures(tmp_path, 1)))
    job = job_of(MODEL, data, small_recipe(), 0, PLAIN)
    own = network_of(job).state_dict()
    other = [name for name, tensor in job.start.tensors.items() if not torch.equal(own[name], tensor)]
    assert sorted(other) == ["head.bias", "head.weight"]


def test_a_control_that_is_named_already_is_not_trained_twice():
    assert with_controls(["tiny-lm+twicing"], "text") == ["tiny-lm+twicing", "tiny-lm+softmax"]
    assert with_controls(["deit", "deit-tw"]) == ["deit", "deit-tw"]
    assert with_controls(["deit_tiny_patch16_224+twicing"])[1] == "deit_tiny_patch16_224+softmax"


def test_weights_that_are_not_there_are_said():
    with pytest.raises(UserError, match="nowhere"):
        job_of("deit+twicing", DigitsData(), training_recipe("digits"), 0, "nowhere.pth")


def test_a_ramp_raises_the_strength_from_softmax_to_the_full_method_and_only_then_is_in_the_hash(tmp_path):
    job = small_job(write_pictures(tmp_path), ramp_epochs=2)
    plain = small_job(tmp_path)
    assert "ramp_epochs" not in plain.recipe.content
    assert job.recipe.hash != plain.recipe.hash
    network = network_of(job)
    ramp = ramp_of(job, network)
    strengths = []
    for update in (0, 3, job.updates, job.updates + 5):
        ramp(update)
        strengths.append({block.attn.mixing.strength for block in network.blocks})
    assert job.updates == 6
    assert strengths == [{0.0}, {0.5}, {1.0}, {1.0}]
    assert {block.attn.mixing.numbers for block in network.blocks} == {(1.0,)}
    folded = job_of("deit_digits_patch8_32+folded(3)", job.data, job.recipe, 0)
    with pytest.raises(UserError, match="ramps the strength of a method up, and folded has none"):
        ramp_of(folded, network_of(folded))
