"""The probe finds each block's method, with its numbers, from what the block does."""

import copy

import pytest
import torch
from torch import nn

from robustbench_twicing import apply_method
from robustbench_twicing.attention.paths import set_attention_path
from robustbench_twicing.attention.probe import attention_of
from robustbench_twicing.errors import UserError
from robustbench_twicing.models.faster.last_block import read_tokens_only
from robustbench_twicing.spec.methods import Attention
from tests.attention.small import small
from tests.oracles.attention import ByHand

MIXTURES = [
    "softmax",
    "twicing",
    "twicing(0.5)",
    "twicing(0.001)",
    "twicing@1,3",
    "twicing(0.999)@0+twicing@1+twicing(0.37)@3",
]


def found(model: nn.Module, claimed: str | None = None) -> str:
    return str(attention_of(model, Attention.parse(claimed) if claimed else None))


@pytest.mark.parametrize("path", ["explicit", "fused"])
@pytest.mark.parametrize("attention", MIXTURES)
def test_tells_methods_strengths_and_mixtures_of_them_apart(attention, path):
    model = apply_method(small(), attention)
    set_attention_path(model, path)
    assert found(model) == attention
    read_tokens_only(model)
    assert found(model) == attention


@pytest.mark.parametrize(
    "settings", [{"qk_norm": True}, {"qkv_bias": False}, {"init_values": 1e-5}], ids=["qk_norm", "no_bias", "scaled"]
)
def test_reads_other_shapes_of_attention(settings):
    assert found(apply_method(small(**settings), "twicing@1+twicing(0.5)@2")) == "twicing@1+twicing(0.5)@2"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("attention", ["softmax", "twicing@3", "twicing(0.5)@0"])
def test_works_in_the_models_precision_which_stays(dtype, attention):
    model = apply_method(small().to(dtype), attention)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert found(model, attention) == attention


@pytest.mark.parametrize("claimed", ["softmax", "twicing", "twicing(0.5)", "twicing(0.499)", "twicing@0,1,2"])
def test_a_wrong_claim_is_not_found(claimed):
    assert found(apply_method(small(), "twicing(0.501)"), claimed) == "twicing(0.501)"


def test_leaves_the_model_and_the_global_generator_alone():
    model = apply_method(small(), "twicing@1").train()
    weights, before = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    attention_of(model)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.blocks[0].attn.training
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_goes_by_behaviour_not_by_class():
    model = small()
    model.blocks[0].attn = ByHand(model.blocks[0].attn, power=1)
    model.blocks[1].attn = ByHand(model.blocks[1].attn, power=2)
    model.blocks[3].attn = ByHand(model.blocks[3].attn, power=2, strength=0.25)
    assert found(model) == "twicing@1+twicing(0.25)@3"
    model.blocks[2].attn = ByHand(model.blocks[2].attn, power=3)  # A²V is twicing of strength -1, which is none
    with pytest.raises(UserError, match=r"blocks\.2 .*no known method(.|\n)*softmax is AV"):
        attention_of(model)


@pytest.mark.parametrize("strength", [-0.2, 1.2, 3.0])
def test_strengths_out_of_range_are_no_method(strength):
    model = small()
    model.blocks[2].attn = ByHand(model.blocks[2].attn, power=2, strength=strength)
    with pytest.raises(UserError, match=r"blocks\.2 .*no known method"):
        attention_of(model)


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_will_not_guess_when_attention_is_uniform_or_no_number(value):
    model = small()
    nn.init.constant_(model.blocks[1].attn.qkv.weight, value)
    with pytest.raises(UserError, match=r"Cannot tell which method blocks\.1"):
        attention_of(model)
