"""Our architectures are timm's to build."""

import importlib

import pytest
import timm

from robustbench_twicing.attention.probe import attention_of
from robustbench_twicing.errors import UserError
from robustbench_twicing.models import registry


@pytest.mark.parametrize(("name", "origin"), registry.TWICING_OF.items())
def test_twicing_names_build_the_same_state_dict(name, origin):
    small = {"embed_dim": 24, "num_heads": 2, "depth": 5}
    model, plain = timm.create_model(name, **small), timm.create_model(origin, **small)
    assert list(model.state_dict()) == list(plain.state_dict())
    assert str(attention_of(model)) == "twicing"


def test_the_papers_variant_is_one_argument():
    model = timm.create_model("deit_tiny_twicing_patch16_224", layers="last3")
    assert str(attention_of(model)) == "twicing@9,10,11"  # blocks 10-12 of 12


def test_there_are_no_published_twicing_weights():
    with pytest.raises(UserError, match="no published weights"):
        timm.create_model("deit_tiny_twicing_patch16_224", pretrained=True)


def test_the_digits_model_is_small_enough_to_embed():
    model = timm.create_model("deit_digits_patch8_32")
    assert sum(parameter.numel() for parameter in model.parameters()) == 314_186
    assert model.pretrained_cfg["mean"] == (0.5, 0.5, 0.5)


def test_importing_again_registers_nothing_twice():
    importlib.reload(registry)  # timm would warn, and a warning is an error here
    assert timm.is_model("deit_digits_patch8_32")
