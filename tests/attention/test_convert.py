"""Conversion changes the attention and nothing else."""

import pickle

import pytest
import timm
import torch
from torch import nn

from robustbench_twicing import apply_method, apply_twicing
from robustbench_twicing.attention.convert import apply_softmax
from robustbench_twicing.attention.paths import MethodAttention
from robustbench_twicing.attention.probe import attention_of
from robustbench_twicing.errors import UserError
from tests.attention.small import FAMILIES, images, small
from tests.oracles.attention import ByHand


def found(model: nn.Module) -> str:
    return str(attention_of(model))


@pytest.mark.parametrize("family", FAMILIES)
def test_converts_and_keeps_the_state_dict(family):
    plain, model = small(family), small(family)
    assert apply_method(model, "twicing") is model
    assert (found(plain), found(model)) == ("softmax", "twicing")
    assert {name: tensor.shape for name, tensor in model.state_dict().items()} == {
        name: tensor.shape for name, tensor in plain.state_dict().items()
    }
    model.load_state_dict(plain.state_dict(), strict=True)
    assert model(images()).shape == (2, 5)
    assert not torch.equal(model(images()), plain(images()))


@pytest.mark.parametrize(
    ("attention", "expected"),
    [
        ("softmax", "softmax"),
        ("twicing", "twicing"),
        ("twicing(1)", "twicing"),
        ("twicing@last3", "twicing@1,2,3"),
        ("twicing(0.5)@0+twicing@2-3", "twicing(0.5)@0+twicing@2,3"),
        ("twicing(0.25)@first4", "twicing(0.25)"),
    ],
)
def test_a_model_has_exactly_the_attention_that_was_said_whatever_it_had(attention, expected):
    for before in ("softmax", "twicing", "twicing(0.5)@0,3"):
        assert found(apply_method(apply_method(small(), before), attention)) == expected


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("none", "softmax"),
        ("last3", "twicing@1,2,3"),
        ("all", "twicing"),
        ("0,2-3", "twicing@0,2,3"),
        ((2, 0, 2), "twicing@0,2"),
        ([], "softmax"),
    ],
)
def test_twicing_goes_into_the_layers_named(layers, expected):
    assert found(apply_twicing(small(), layers)) == expected


def test_twicing_again_adds_blocks():
    model = apply_twicing(apply_twicing(small(), (0,)), (0, 2))
    assert found(model) == "twicing@0,2"


def test_our_softmax_attention_replaces_timms_and_no_other():
    model, plain = apply_twicing(small(), (1,)), apply_twicing(small(), (1,))
    model.blocks[3].attn = plain.blocks[3].attn = ByHand(model.blocks[3].attn, power=1)
    assert apply_softmax(model) is model
    assert [type(block.attn) is MethodAttention for block in model.blocks] == [True, True, True, False]
    assert list(model.state_dict()) == list(plain.state_dict())
    assert found(model) == "twicing@1"
    torch.testing.assert_close(model(images()), plain(images()))
    assert found(apply_twicing(model, (0,))) == "twicing@0,1"
    resnet = timm.create_model("resnet10t")
    assert apply_softmax(resnet) is resnet


def test_a_converted_model_can_be_pickled():
    model = apply_method(small(), "twicing(0.5)")
    again = pickle.loads(pickle.dumps(model))
    assert torch.equal(again(images()), model(images()))


@pytest.mark.parametrize(
    ("family", "named"),
    [
        ("swin_tiny_patch4_window7_224", r"layers\.0\.blocks\.0 .*WindowAttention"),
        ("beit_base_patch16_224", r"blocks\.0 .*timm\.models\.beit\.Attention"),
        ("resnet10t", "ResNet has no transformer blocks"),
    ],
)
def test_refuses_other_models_by_the_name_of_the_block(family, named):
    settings = {"embed_dim": 24, "num_heads": 2, "depth": 1} if family.startswith("beit") else {}
    with pytest.raises(UserError, match=named):
        apply_method(timm.create_model(family, **settings), "twicing")


def test_a_refused_model_is_left_as_it_was():
    model = small()
    model.blocks[3].attn = ByHand(model.blocks[3].attn, power=1)
    with pytest.raises(UserError, match=r"blocks\.3 .*ByHand"):
        apply_twicing(model)
    assert found(model) == "softmax"


@pytest.mark.parametrize("layers", [(4,), (0, -1), "first5", "last5", "lats3", ""])
def test_layers_that_do_not_exist(layers):
    with pytest.raises(UserError):
        apply_twicing(small(), layers)


@pytest.mark.parametrize(
    ("attention", "says"),
    [
        ("twicng", "Unknown method 'twicng'(.|\n)*Did you mean twicing"),
        ("twicing@9", "No block 9 in a model of 4 blocks"),
        ("twicing@last2+twicing(0.5)@2", "block 2 of 4"),
        ("twicing(2)", "cannot be 2(.|\n)*from 0.001 to 1"),
    ],
)
def test_attention_that_cannot_be_had(attention, says):
    model = small()
    with pytest.raises(UserError, match=says):
        apply_method(model, attention)
    assert found(model) == "softmax"
