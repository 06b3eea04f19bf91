"""The memory format is where values lie, and nothing else."""

import copy

import pytest
import timm
import torch
from torch import nn

from robustbench_twicing.errors import UserError
from robustbench_twicing.models.build import new_network
from robustbench_twicing.models.faster.memory_format import convolves, set_memory_format


def test_logits_and_gradients_stay_and_the_weights_can_be_put_back() -> None:
    network = timm.create_model("resnet18", num_classes=7, norm_layer=nn.Identity).double().eval().requires_grad_(False)
    before = copy.deepcopy(network)
    x, y = (torch.rand(2, 3, 40, 40, dtype=torch.float64).requires_grad_() for _ in range(2))
    with torch.no_grad():
        y.copy_(x)
    set_memory_format([network], "channels last")
    assert network.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert list(network.state_dict()) == list(before.state_dict())
    found, expected = network(x), before(y)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)
    gradients = (torch.autograd.grad(logits.sum(), pixels)[0] for logits, pixels in ((found, x), (expected, y)))
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-12)

    set_memory_format([network], "contiguous")
    assert network.conv1.weight.is_contiguous()
    assert torch.equal(network(x), expected)


def test_a_vision_transformer_has_nothing_to_lay_out() -> None:
    assert not convolves(new_network("deit_digits_patch8_32"))
    assert convolves(timm.create_model("resnet18"))


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(UserError, match="Unknown memory format 'rows'"):
        set_memory_format([], "rows")
