"""Frozen layers through oneDNN: the same results as torch's own layers, but for rounding."""

import copy
from functools import partial

import pytest
import timm
import torch
from timm.layers import Mlp
from torch import nn

from robustbench_twicing.catalog.zoo import model_spec
from robustbench_twicing.machine import onednn
from robustbench_twicing.models.build import load_model
from robustbench_twicing.models.faster.onednn_layers import FrozenLinear, FrozenMlp, FrozenPatches, use_onednn

pytestmark = pytest.mark.skipif(not onednn.available(), reason="this torch has no usable oneDNN")


def pair(network: nn.Module) -> tuple[nn.Module, nn.Module]:
    """A frozen network as it is, and with its layers changed."""
    plain = network.eval().requires_grad_(False)
    ours = copy.deepcopy(plain)
    assert use_onednn(ours) > 0
    return plain, ours


def layer(kind: str) -> tuple[nn.Module, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    made = {"linear": nn.Linear(48, 20), "no bias": nn.Linear(48, 20, bias=False), "patches": nn.Conv2d(3, 20, 4, 4)}
    shape = (2, 3, 8, 12) if kind == "patches" else (2, 5, 48)
    return made[kind], torch.rand(shape, generator=generator)


TYPES = [dtype for dtype in (torch.float32, torch.bfloat16) if onednn.available(dtype)]


@pytest.mark.parametrize("kind", ["linear", "no bias", "patches"])
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_output_and_input_gradient_are_those_of_float64(kind, dtype):
    made, x = layer(kind)
    made, x = made.to(dtype), x.to(dtype)
    _, ours = pair(nn.Sequential(made))
    exact = copy.deepcopy(made).double()
    inputs, wide = x.clone().requires_grad_(), x.double().requires_grad_()
    found, expected = ours(inputs), exact(wide)
    direction = torch.rand(expected.shape, generator=torch.Generator().manual_seed(4)).to(dtype)
    (gradient,) = torch.autograd.grad((found * direction).sum(), inputs)
    (exactly,) = torch.autograd.grad((expected * direction).sum(), wide)
    # At most 48 products of numbers up to one, summed in float32; bfloat16 rounds the result to 2^-9 of its size.
    bound = {"rtol": 0 if dtype == torch.float32 else 2.0**-8, "atol": 48 * 2.0**-24}
    torch.testing.assert_close(found.double(), expected, **bound)
    torch.testing.assert_close(gradient.double(), exactly, **bound)
    with torch.no_grad():
        torch.testing.assert_close(ours(x).double(), expected, **bound)


def test_a_network_keeps_its_answers_its_gradients_and_its_keys():
    plain, ours = pair(timm.create_model("deit_tiny_patch16_224", num_classes=7, depth=2))
    assert sum(type(module) is FrozenLinear for module in ours.modules()) == 9  # 2 blocks of 4, and the head
    assert type(ours.patch_embed.proj) is FrozenPatches
    assert list(plain.state_dict()) == list(ours.state_dict())
    images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    results = []
    for network in (plain, ours):
        x = images.clone().requires_grad_()
        logits = network(x)
        results.append((logits.detach(), torch.autograd.grad(logits.square().sum(), x)[0]))
    (logits, gradient), (other, other_gradient) = results
    # Logits of size one after two blocks; float32 rounding passes through two layer norms a block.
    torch.testing.assert_close(other, logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(other_gradient, gradient, rtol=0, atol=1e-5 * float(gradient.abs().max()))


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_an_mlp_without_gradients_is_the_same(approximate):
    with torch.random.fork_rng():
        torch.manual_seed(2)
        plain = Mlp(24, 96, act_layer=partial(nn.GELU, approximate=approximate), drop=0.5)
    plain, ours = pair(plain)
    assert type(ours) is FrozenMlp
    x = torch.randn(3, 7, 24, generator=torch.Generator().manual_seed(1))
    expected = copy.deepcopy(plain).double()(x.double())
    seen = []
    with torch.no_grad():
        # Two layers of 24 and 96 products of numbers of size one.
        torch.testing.assert_close(ours(x).double(), expected, rtol=0, atol=(24 + 96) * 2.0**-24)
        ours.train()
        assert not torch.equal(ours(x), ours(x))  # dropout is still there
        ours.eval().act.register_forward_hook(lambda module, args, output: seen.append(output))
        torch.testing.assert_close(ours(x).double(), expected, rtol=0, atol=(24 + 96) * 2.0**-24)
    assert len(seen) == 1


def test_second_derivatives_are_left_to_autograd():
    _, ours = pair(nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 2)))
    assert torch.autograd.gradcheck(ours.double(), torch.rand(3, 4).double().requires_grad_())
    ours.float()
    x = torch.rand(3, 4, requires_grad=True)
    (first,) = torch.autograd.grad(ours(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x)
    assert second.abs().max() > 0


@pytest.mark.parametrize("case", ["trainable", "float64", "float16", "autocast"])
def test_what_it_cannot_do_is_torchs_own(case, monkeypatch):
    made, x = layer("linear")
    _, ours = pair(nn.Sequential(made))
    monkeypatch.setattr("robustbench_twicing.machine.onednn.product", None)  # calling it would be an error
    if case == "trainable":
        ours.requires_grad_(True)
        ours(x).sum().backward()
        assert ours[0].weight.grad is not None
    elif case == "autocast":
        with torch.autocast("cpu", torch.bfloat16):
            assert ours(x).dtype == torch.bfloat16
    else:
        kind = getattr(torch, case)
        assert ours.to(kind)(x.to(kind)).dtype == kind


def test_windows_that_overlap_or_do_not_fill_the_image_stay_convolutions():
    overlapping = nn.Sequential(nn.Conv2d(3, 4, 3, stride=1))
    assert use_onednn(overlapping) == 0
    plain, ours = pair(nn.Sequential(nn.Conv2d(3, 4, 4, 4)))
    x = torch.rand(1, 3, 10, 9)
    assert torch.equal(ours(x), plain(x))


@pytest.mark.parametrize("count", [1, 63, 64, 69])
def test_filling_a_batch_up_changes_nothing_but_its_size(count, monkeypatch):
    model = load_model(model_spec("deit", "digits"))
    images = torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    sizes, gradients, answers = [], [], []
    model.network.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    for granule in (model.granule, 1):
        monkeypatch.setattr(model, "granule", granule)
        x = images.clone().requires_grad_()
        logits = model(x)
        answers.append(logits.detach())
        gradients.append(torch.autograd.grad(logits.square().sum(), x)[0])
    assert sizes == [count if count < 64 else -(-count // 8) * 8, count]
    assert answers[0].shape == (count, 10)
    # Logits up to ten in size; another number of rows sums in another order.
    torch.testing.assert_close(answers[0], answers[1], rtol=0, atol=1e-4)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=1e-4 * float(gradients[1].abs().max()))


def test_a_product_for_compiled_code_asks_nothing_of_other_threads(monkeypatch):
    made, x = layer("linear")
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)  # as another thread's compilation makes it
    with torch.no_grad():
        found = onednn.product(x, made.weight, made.bias)
        assert onednn.product(x, made.weight, made.bias, onednn.clamped(0.0, 0.1)).max() <= 0.1
    monkeypatch.undo()
    torch.testing.assert_close(found, made(x).detach())
