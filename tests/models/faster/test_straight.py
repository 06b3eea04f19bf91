"""The way straight through a network: what the network says, bit by bit, wherever nobody looks inside."""

import copy

import pytest
import torch
from torch import nn

from robustbench_twicing.attention.convert import apply_method
from robustbench_twicing.catalog.zoo import model_spec
from robustbench_twicing.machine import onednn
from robustbench_twicing.models.build import load_model, new_network
from robustbench_twicing.models.faster.onednn_layers import use_onednn
from robustbench_twicing.models.faster.straight import straight

pytestmark = pytest.mark.skipif(not onednn.available(), reason="this torch has no usable oneDNN")


@pytest.fixture(scope="module")
def loaded() -> nn.Module:
    return load_model(model_spec("deit-tw-last3", "digits")).network


@pytest.fixture
def network(loaded: nn.Module) -> nn.Module:
    return copy.deepcopy(loaded)


def images_of(count: int) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize("count", [1, 5, 40])  # 40 has products of both kinds
def test_logits_and_gradients_are_the_networks_to_the_bit(network, count):
    way, images = straight(network), images_of(count).requires_grad_()
    assert way.takes(images)
    logits, expected = way(images), network(images)
    assert torch.equal(logits, expected)
    direction = torch.randn(expected.shape, generator=torch.Generator().manual_seed(4))
    (wanted,) = torch.autograd.grad(expected, images, direction)
    for _ in range(2):  # as often as somebody wants it
        (found,) = torch.autograd.grad(logits, images, direction, retain_graph=True)
        assert torch.equal(found, wanted)
    with torch.no_grad():
        assert torch.equal(way(images), network(images))


def test_a_model_goes_that_way_and_a_listener_still_hears(monkeypatch):
    model, images, heard = load_model(model_spec("deit", "digits")), images_of(2).sigmoid(), []
    with torch.no_grad():
        expected = model(images)
        monkeypatch.setattr(type(model.network), "forward", None)  # calling it would be an error
        assert torch.equal(model(images), expected)
        monkeypatch.undo()
        model.network.blocks[1].mlp.act.register_forward_hook(lambda module, args, output: heard.append(output))
        assert torch.equal(model(images), expected)
        assert len(heard) == 1
        monkeypatch.setattr(model.network.blocks[0], "forward", lambda x, **options: x)
        assert not torch.equal(model(images), expected)


def test_second_derivatives_are_the_networks(network):
    way, images, found = straight(network), images_of(2), []
    for forward in (way, network):
        x = images.clone().requires_grad_()
        (first,) = torch.autograd.grad(forward(x).square().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(first.square().sum(), x)[0])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4 * float(found[1].abs().max()))


def trained(network: nn.Module) -> None:
    network.train()


def another_part(network: nn.Module) -> None:
    network.blocks[0].mlp.act = nn.GELU()


def another_method(network: nn.Module) -> None:
    apply_method(network, "neutreno")


def weights_wanted(network: nn.Module) -> None:
    network.head.requires_grad_(True)


def fused(network: nn.Module) -> None:
    network.blocks[2].attn.path = "fused"


def in_double(network: nn.Module) -> None:
    network.double()


@pytest.mark.parametrize("change", [trained, another_part, another_method, weights_wanted, fused, in_double])
def test_a_network_that_has_changed_is_called_itself(network, change):
    way = straight(network)
    assert way.takes(images_of(1))
    change(network)
    assert not way.takes(images_of(1).to(network.pos_embed.dtype))


def test_what_it_does_not_know_it_does_not_take(network):
    way, images = straight(network), images_of(1)
    assert not way.takes(images.double())
    assert not way.takes(images[:, :, :16])
    with torch.autocast("cpu", torch.bfloat16):
        assert not way.takes(images)
    for architecture in ("vit_tiny_patch16_224", "deit3_small_patch16_224", "resnet18"):
        other = new_network(architecture).eval().requires_grad_(False)
        use_onednn(other)
        assert not straight(other).takes(torch.zeros(1, 3, 224, 224))
