"""Attacks that reach into attention: against other packages, by hand, and what they leave behind."""

from typing import Any

import pytest
import torch
from torch import nn

from robustbench_twicing.attention.altered import Alterations, altered
from robustbench_twicing.attention.convert import apply_method
from robustbench_twicing.attention.paths import set_attention_path
from robustbench_twicing.catalog.zoo import model_spec
from robustbench_twicing.data.digits import digits as digits_images
from robustbench_twicing.engine.att import with_tuned_rows_and_columns, with_tuned_tokens
from robustbench_twicing.engine.patch_fool import without_conflict
from robustbench_twicing.engine.tgr import without_extreme_rows_and_columns, without_extreme_tokens
from robustbench_twicing.errors import UserError
from robustbench_twicing.inside.watch import operator_of
from robustbench_twicing.models.build import load_model
from robustbench_twicing.models.faster.last_block import read_tokens_only
from robustbench_twicing.spec.methods import SOFTMAX
from robustbench_twicing.spec.models import Recipe
from tests.engine.tiny import (
    answers,
    att_settings,
    attack,
    patch_fool_settings,
    pna_patchout_settings,
    random_images,
    small_net,
    small_vit,
    tgr_settings,
    threat,
)
from tests.oracles.attention_attacks import EPS, PATCH_FOOL, SIZE, THREATS, found, given, patch_fooled

ALL = {
    "pna-patchout": pna_patchout_settings(3),
    "tgr": tgr_settings(3),
    "att": att_settings(3),
    "patch-fool": patch_fool_settings(3),
}
ATTENTIONS = ("timm", "softmax", "twicing", "twicing(0.5)@1", "folded", "neutreno@1", "temperature")


def net_with(attention: str) -> Any:
    net = small_vit(depth=3)
    if attention == "softmax":
        apply_method(apply_method(net, "twicing"), "softmax")
    elif attention != "timm":
        apply_method(net, attention)
    return net


def test_the_steps_are_those_of_torchattack_and_tokenfool() -> None:
    for name, theirs in found().items():
        network, images, labels = given(name)
        ours = ((attack(network, images, labels, THREATS[name]).images - images) / (EPS / 10)).round()
        assert theirs.unique().numel() > 9
        # 0 of 1,296 values differ where it was made; a gradient near 0 may have another sign on another machine.
        assert (ours != theirs).float().mean() < 0.02, name


def test_patch_fool_ends_where_tokenfools_does_and_changes_one_patch_only() -> None:
    network, images, labels = given()
    theirs, ours = patch_fooled(), attack(network, images, labels, PATCH_FOOL).images
    # Steps of Adam divide by the size of the gradient, so rounding is let through where it is small.
    assert ((ours - theirs).abs() > 1e-3).float().mean() < 0.02
    half = SIZE // 2
    changed = (ours != images).any(1).unfold(1, half, half).unfold(2, half, half).flatten(3).any(3)
    assert changed.flatten(1).sum(1).tolist() == [1, 1, 1]
    two = attack(network, images, labels, threat(patch_fool_settings(2, patches=2), "1/255")).images
    changed = (two != images).any(1).unfold(1, half, half).unfold(2, half, half).flatten(3).any(3)
    assert changed.flatten(1).sum(1).tolist() == [2, 2, 2]
    assert (two - images).abs().max() <= 1 / 255 + 1e-6


def test_what_draws_attention_away_from_fooling_is_left_out() -> None:
    pull = torch.tensor([[-2.0, 1.0, 0.0], [2.0, 1.0, 0.0]])[:, :, None, None]
    gradient = torch.tensor([[4.0, 0.0, 0.0], [4.0, 0.0, 0.0]])[:, :, None, None]
    left = without_conflict(pull, gradient).flatten(1)
    assert torch.equal(left, torch.tensor([[0.0, 1.0, 0.0], [2.0, 1.0, 0.0]]))


def test_extreme_tokens_are_those_that_one_sees() -> None:
    scores = torch.tensor([[[[1.0, 2.0, 3.0, 4.0], [5.0, 9.0, 6.0, 7.0], [1.0, 1.0, 1.0, 1.0], [1.0, 1.0, -9.0, 1.0]]]])
    left = torch.tensor([[[[0.5, 0.0, 0.0, 2.0], [0.0] * 4, [0.5, 0.0, 0.0, 0.5], [0.0] * 4]]])
    assert torch.equal(without_extreme_rows_and_columns(0.5, scores), left)
    tuned = torch.tensor(
        [[[[1.0, 1.0, 1.5, 4.0], [2.5, 2.25, 1.5, 3.5], [1.0, 0.5, 0.5, 1.0], [0.5, 0.25, -2.25, 0.5]]]]
    )
    assert torch.equal(with_tuned_rows_and_columns(torch.tensor([0.5]), scores), tuned)
    tokens = torch.tensor([[[1.0, 8.0], [2.0, -8.0], [3.0, 4.0], [-4.0, 2.0]]])
    half = torch.tensor([[[1.0, 4.0], [2.0, -4.0], [1.5, 4.0], [-2.0, 2.0]]])
    assert torch.equal(with_tuned_tokens(torch.tensor([0.5]), tokens), half)
    assert torch.equal(without_extreme_tokens(0.5, tokens), torch.tensor([[[0.5, 0], [1, 0], [0, 2], [0, 1]]]))


@pytest.mark.parametrize("path", ["explicit", "fused"])
@pytest.mark.parametrize("attention", [each for each in ATTENTIONS if each != "neutreno@1"])
def test_paying_no_attention_takes_the_methods_operator_for_a_constant(attention: str, path: str) -> None:
    """In one block by hand: the operator that collapse measures, times the values, is all that passes a gradient."""
    net = net_with(attention)
    set_attention_path(net, path)
    block, x = net.blocks[1], torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    own = block.attn
    q, k, _ = own.qkv(x).reshape(2, 5, 3, 2, 4).permute(2, 0, 3, 1, 4)
    weights = (own.scale * q @ k.transpose(-2, -1)).softmax(-1)
    operator = operator_of(getattr(own, "method", SOFTMAX), q, k, own.scale, weights, first=False)
    assert operator is not None
    asked = x.clone().requires_grad_()
    values = own.qkv(asked).reshape(2, 5, 3, 2, 4).permute(2, 0, 3, 1, 4)[2]
    by_hand = own.proj((operator.detach() @ values).transpose(1, 2).reshape(2, 5, 8))
    (expected,) = torch.autograd.grad(by_hand.square().sum(), asked)
    with altered(net, Alterations(on_scores=torch.Tensor.detach)):
        mixed = block.attn(asked)
        (gradient,) = torch.autograd.grad(mixed.square().sum(), asked)
    torch.testing.assert_close(mixed, by_hand, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_every_path_and_a_last_block_of_read_tokens_give_the_same_attack(attention: str, name: str) -> None:
    images = random_images(3)
    made = []
    for path in ("explicit", "fused", "read"):
        net = net_with(attention)
        if path == "read":
            assert read_tokens_only(net)
        else:
            set_attention_path(net, path)
        made.append(attack(net, images, torch.tensor([0, 1, 2]), threat(ALL[name])).images)
    assert (made[0] - images).abs().max() > 0.2 * 8 / 255
    for other in made[1:]:
        assert (other != made[0]).float().mean() < 0.02  # signs of gradients that rounding turns


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("attention", ["timm", "twicing", "neutreno"])
@pytest.mark.parametrize("stops", [False, True])
def test_the_network_is_afterwards_what_it_was(attention: str, name: str, stops: bool) -> None:
    net, images = net_with(attention), random_images(2)
    if attention != "timm":
        read_tokens_only(net)
    before, modules = net(images), dict(net.named_modules())
    said = {key: dict(vars(module)) for key, module in modules.items()}
    if stops:
        handle = net.norm.register_forward_hook(lambda *ran: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            attack(net, images, torch.tensor([0, 1]), threat(ALL[name]))
        handle.remove()
    else:
        attack(net, images, torch.tensor([0, 1]), threat(ALL[name]))
    assert torch.equal(net(images), before)
    after = dict(net.named_modules())
    assert after.keys() == modules.keys()
    for key, module in after.items():
        assert module is modules[key]
        assert not module._forward_hooks
        assert vars(module).keys() == said[key].keys()
        assert all(vars(module)[part] is was for part, was in said[key].items() if part != "first")
    assert all(parameter.grad is None for parameter in net.parameters())


class _Foreign(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn, self.mlp = nn.MultiheadAttention(8, 2), nn.Linear(8, 8)


class _Compiled(nn.Module):
    """As torch.compile wraps a module, without its import."""

    def __init__(self) -> None:
        super().__init__()
        self._orig_mod = small_vit()


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (small_net(), "the network has none"),
        (lambda images: images.flatten(1)[:, :5], "The model is a function"),
        (nn.Sequential(small_vit(), _Foreign()), "MultiheadAttention"),
        (_Compiled(), "compiled, scripted or traced"),
    ],
)
@pytest.mark.parametrize("name", ALL)
def test_what_has_no_attention_that_can_be_reached_is_refused(model: Any, says: str, name: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        attack(model, random_images(1), torch.tensor([0]), threat(ALL[name]))
    assert caught.value.hint


def test_what_is_left_of_the_gradient_is_what_the_settings_say() -> None:
    """With nothing left, a gradient goes along the residual stream only, where the class token's meets no patch."""
    net, images, labels = small_vit(), random_images(2), torch.tensor([0, 1])
    nothing = tgr_settings(1).model_copy(update={"attention": 0.0, "qkv": 0.0, "mlp": 0.0})
    made = attack(net, images, labels, threat(nothing)).images
    assert torch.equal(made, images)
    assert not torch.equal(attack(net, images, labels, threat(tgr_settings(1))).images, images)
    assert torch.equal(answers(net, made), answers(net, images))


@pytest.mark.parametrize("name", ["pna-patchout", "tgr", "att", "patch-fool"])
def test_a_classifier_that_fills_its_batches_up_is_attacked_as_one_that_does_not(name: str) -> None:
    """Batches of 64 and more are filled up to a size that the CPU is fast at; 70 images are none."""
    digits, model = digits_images(), load_model(model_spec("deit", "digits"))
    images = digits.read(range(70), [Recipe()]).images[Recipe()]
    labels = torch.tensor(digits.labels[:70])
    assert model.granule > 1
    what = threat(ALL[name], "1" if name == "patch-fool" else "4/255")
    filled = attack(model, images, labels, what, batch_size=128).images
    model.granule = 1
    plain = attack(model, images, labels, what, batch_size=128).images
    assert filled.shape == images.shape
    assert (filled - images).abs().max() > 0
    assert ((filled - plain).abs() > 1e-6).float().mean() < 0.05  # sums of other sizes are rounded otherwise
