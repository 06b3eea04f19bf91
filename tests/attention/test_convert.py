"""Conversion changes the attention and nothing else, and the probe finds it from behaviour."""

import copy

import pytest
import timm
import torch
from torch import nn

from robustbench_twicing import apply_twicing
from robustbench_twicing.attention.convert import apply_softmax
from robustbench_twicing.attention.paths import SoftmaxAttention
from robustbench_twicing.attention.probe import twicing_blocks
from robustbench_twicing.errors import UserError
from tests.oracles.attention import ByHand

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "num_heads": 2, "depth": 4, "num_classes": 5}
FAMILIES = (
    "vit_tiny_patch16_224",
    "deit_tiny_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "deit3_small_patch16_224",
    "vit_small_patch14_reg4_dinov2",
)


def small(family: str = "deit_tiny_patch16_224", **settings) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return timm.create_model(family, **{**SMALL, **settings}).eval()


def images() -> torch.Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("family", FAMILIES)
def test_converts_and_keeps_the_state_dict(family):
    plain, model = small(family), small(family)
    assert apply_twicing(model) is model
    assert twicing_blocks(plain) == ()
    assert twicing_blocks(model) == (0, 1, 2, 3)
    assert {name: tensor.shape for name, tensor in model.state_dict().items()} == {
        name: tensor.shape for name, tensor in plain.state_dict().items()
    }
    model.load_state_dict(plain.state_dict(), strict=True)
    assert model(images()).shape == (2, 5)
    assert not torch.equal(model(images()), plain(images()))


@pytest.mark.parametrize(
    ("layers", "expected"), [("none", ()), ("last3", (1, 2, 3)), ("all", (0, 1, 2, 3)), ((2, 0, 2), (0, 2)), ([], ())]
)
def test_probe_finds_exactly_the_converted_blocks(layers, expected):
    assert twicing_blocks(apply_twicing(small(), layers)) == expected


def test_converting_again_adds_blocks():
    model = apply_twicing(apply_twicing(small(), (0,)), (0, 2))
    assert twicing_blocks(model) == (0, 2)


def test_our_softmax_attention_replaces_timms_and_no_other():
    model, plain = apply_twicing(small(), (1,)), apply_twicing(small(), (1,))
    model.blocks[3].attn = plain.blocks[3].attn = ByHand(model.blocks[3].attn, power=1)
    assert apply_softmax(model) is model
    assert [type(block.attn) is SoftmaxAttention for block in model.blocks] == [True, False, True, False]
    assert list(model.state_dict()) == list(plain.state_dict())
    assert twicing_blocks(model) == (1,)
    torch.testing.assert_close(model(images()), plain(images()))
    assert twicing_blocks(apply_twicing(model, (0,))) == (0, 1)
    resnet = timm.create_model("resnet10t")
    assert apply_softmax(resnet) is resnet


@pytest.mark.parametrize(
    "settings", [{"qk_norm": True}, {"qkv_bias": False}, {"init_values": 1e-5}], ids=["qk_norm", "no_bias", "scaled"]
)
def test_probe_reads_other_shapes_of_attention(settings):
    assert twicing_blocks(apply_twicing(small(**settings), (1,))) == (1,)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_dtype_stays_and_the_probe_works_in_it(dtype):
    model = apply_twicing(small().to(dtype), (3,))
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert twicing_blocks(model) == (3,)


def test_probe_leaves_the_model_and_the_global_generator_alone():
    model = apply_twicing(small(), (1,)).train()
    weights, before = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    twicing_blocks(model)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.blocks[0].attn.training
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_probe_goes_by_behaviour_not_by_class():
    model = small()
    model.blocks[0].attn = ByHand(model.blocks[0].attn, power=1)
    model.blocks[1].attn = ByHand(model.blocks[1].attn, power=2)
    assert twicing_blocks(model) == (1,)
    model.blocks[2].attn = ByHand(model.blocks[2].attn, power=3)
    with pytest.raises(UserError, match=r"blocks\.2 .*neither"):
        twicing_blocks(model)


def test_probe_will_not_guess_when_attention_is_uniform():
    model = small()
    nn.init.zeros_(model.blocks[1].attn.qkv.weight)
    with pytest.raises(UserError, match=r"Cannot tell whether blocks\.1"):
        twicing_blocks(model)


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
        apply_twicing(timm.create_model(family, **settings))


def test_a_refused_model_is_left_as_it_was():
    model = small()
    model.blocks[3].attn = ByHand(model.blocks[3].attn, power=1)
    with pytest.raises(UserError, match=r"blocks\.3 .*ByHand"):
        apply_twicing(model)
    assert twicing_blocks(model) == ()


@pytest.mark.parametrize("layers", [(4,), (0, -1), "first3"])
def test_layers_that_do_not_exist(layers):
    with pytest.raises(UserError):
        apply_twicing(small(), layers)
