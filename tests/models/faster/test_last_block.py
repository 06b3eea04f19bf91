"""Whatever the path, and whether or not the last block is cut: logits and input gradients are those of the formula."""

import copy

import pytest
import timm
import torch
from timm.models.vision_transformer import Attention, ResPostBlock
from torch import nn

from robustbench_twicing import apply_twicing
from robustbench_twicing.attention.convert import apply_method, apply_softmax
from robustbench_twicing.attention.paths import set_attention_path
from robustbench_twicing.attention.probe import attention_of
from robustbench_twicing.models.faster.last_block import read_tokens_only
from robustbench_twicing.models.registry import EMBEDDED
from tests.oracles.attention import ByHand

# Five by three patches, heads of seven numbers: nothing is a power of two.
ODD = {"img_size": (40, 24), "patch_size": 8, "embed_dim": 21, "num_heads": 3, "depth": 3, "num_classes": 5}
READ = {
    "vit_tiny_patch16_224": 1,
    "deit_tiny_patch16_224": 1,
    "deit_tiny_distilled_patch16_224": 2,
    "deit3_small_patch16_224": 1,  # LayerScale
    "vit_small_patch14_reg4_dinov2": 1,  # LayerScale, and four tokens that no head reads
    EMBEDDED[0]: 1,
}


def odd(family: str = "deit_tiny_patch16_224", **settings) -> nn.Module:
    """A small model in float64 whose every weight matters: LayerScale is not 1e-6, biases are not 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = timm.create_model(family, **{**ODD, **settings}).double().eval()
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.4)
    return model


def pixels(batch: int = 3) -> torch.Tensor:
    return torch.rand(batch, 3, 40, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def by_hand(model: nn.Module, twicing: tuple[int, ...] = (), strength: float = 1.0) -> nn.Module:
    """A copy of `model` with attention from the oracle, twicing in those blocks."""
    model = copy.deepcopy(model)
    for number, block in enumerate(model.blocks):
        block.attn = ByHand(block.attn, power=2 if number in twicing else 1, strength=strength)
    return model


def logits_and_gradient(model: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    images = images.clone().requires_grad_()
    logits = model(images)
    weights = torch.linspace(-1, 1, logits.shape[1], dtype=logits.dtype)
    return logits.detach(), torch.autograd.grad((logits * weights).sum(), images)[0]


def assert_equal(model: nn.Module, reference: nn.Module, images: torch.Tensor) -> None:
    for got, expected in zip(logits_and_gradient(model, images), logits_and_gradient(reference, images), strict=True):
        # float64 rounding (1e-16) through three blocks with sharp attention; what a wrong formula misses by is about 1.
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-10 * expected.abs().max().item())


@pytest.mark.parametrize("path", ["explicit", "fused"])
@pytest.mark.parametrize(
    ("attention", "twicing", "strength"),
    [
        ("softmax", (), 1.0),
        ("twicing", (0, 1, 2), 1.0),
        ("twicing@2", (2,), 1.0),
        ("twicing@first2", (0, 1), 1.0),
        ("twicing(0.5)@last2", (1, 2), 0.5),
    ],
)
@pytest.mark.parametrize("family", READ)
def test_all_paths_meet_the_formula(family, attention, twicing, strength, path):
    plain = odd(family)
    model = apply_softmax(apply_method(copy.deepcopy(plain), attention))
    reference = by_hand(plain, twicing, strength)
    set_attention_path(model, path)
    assert_equal(model, reference, pixels())
    assert read_tokens_only(model) == READ[family]
    assert_equal(model, reference, pixels())
    assert_equal(model, reference, pixels(1))


@pytest.mark.parametrize("path", ["explicit", "fused"])
@pytest.mark.parametrize("twicing", ["none", "all"])
def test_float32_is_as_near_the_formula_as_timm(path, twicing, capsys):
    plain = odd()
    reference = logits_and_gradient(by_hand(plain, (0, 1, 2) if twicing == "all" else ()), pixels())
    model = apply_softmax(apply_twicing(copy.deepcopy(plain), twicing)).float()
    read_tokens_only(model)
    set_attention_path(model, path)
    for name, got, expected in zip(
        ("logits", "gradient"), logits_and_gradient(model, pixels().float()), reference, strict=True
    ):
        distance = ((got - expected).abs().max() / expected.abs().max()).item()
        print(f"{name}: {distance:.1e} of the largest")
        # float32 rounding (6e-8) times some hundred: three blocks whose softmax multiplies by scores of about 10.
        assert distance < 1e-5


@pytest.mark.parametrize("settings", [{"qk_norm": True}, {"qkv_bias": False}, {"drop_path_rate": 0.5}], ids=str)
@pytest.mark.parametrize("path", ["explicit", "fused"])
def test_other_parts_of_a_block(settings, path):
    plain = odd(**settings)
    model = apply_twicing(copy.deepcopy(plain), (1, 2))
    set_attention_path(model, path)
    assert read_tokens_only(model) == 1
    assert_equal(model, by_hand(plain, (1, 2)), pixels())


@pytest.mark.parametrize("settings", [{"gated": True}, {"scale_norm": True}], ids=str)
@pytest.mark.parametrize("twicing", ["none", "all"])
def test_attention_that_only_newer_timm_has(settings, twicing):
    plain = odd()
    for block in plain.blocks:
        try:
            block.attn = Attention(21, num_heads=3, qkv_bias=True, norm_layer=nn.LayerNorm, **settings).double().eval()
        except TypeError:
            pytest.skip("this timm has it not")
    plain = apply_twicing(plain, twicing)
    model = copy.deepcopy(plain)
    assert read_tokens_only(model) == 1
    assert_equal(model, plain, pixels())


def test_norm_behind_the_pooling():
    plain = odd(fc_norm=True)
    model = copy.deepcopy(plain)
    assert read_tokens_only(model) == 1
    assert_equal(model, plain, pixels())


@pytest.mark.parametrize("layers", ["all", (2,), (0,), "none"], ids=str)
def test_order_of_conversions_does_not_matter(layers):
    first, last = odd(), odd()
    apply_twicing(first, layers)
    assert read_tokens_only(first) == read_tokens_only(last) == 1
    apply_twicing(last, layers)
    assert attention_of(first) == attention_of(last)
    assert torch.equal(first(pixels()), last(pixels()))
    assert read_tokens_only(first) == 1  # again
    assert torch.equal(first(pixels()), last(pixels()))


@pytest.mark.parametrize("family", READ)
def test_weights_and_the_probe_stay(family):
    model = apply_twicing(odd(family), (0, 2))
    keys = list(model.state_dict())
    read_tokens_only(model)
    assert list(model.state_dict()) == keys
    assert str(attention_of(model)) == "twicing@0,2"
    plain = odd(family)
    read_tokens_only(plain)
    assert str(attention_of(plain)) == "softmax"


@pytest.mark.parametrize("twicing", ["none", "all"])
def test_only_the_tokens_that_are_read_are_computed_and_all_in_training(twicing):
    model, plain = apply_twicing(odd(), twicing), apply_twicing(odd(), twicing)
    seen = []
    model.blocks[-1].mlp.register_forward_hook(lambda module, args, out: seen.append(out.shape[1]))
    model(pixels())
    read_tokens_only(model)
    model(pixels())
    tokens = 1 + 5 * 3
    assert seen == [tokens, 1]
    torch.testing.assert_close(model.train()(pixels()), plain.train()(pixels()), rtol=0, atol=1e-10)
    assert seen[-1] == tokens
    model.eval()
    model(pixels())
    assert seen[-1] == 1


def test_a_masked_last_block_computes_all_tokens():
    model, plain = apply_twicing(odd()), apply_twicing(odd())
    read_tokens_only(model)
    x = torch.randn(2, 6, 21, dtype=torch.float64)
    mask = torch.rand(6, 6) < 0.5
    mask.fill_diagonal_(True)
    attention, unread = model.blocks[-1].attn, plain.blocks[-1].attn
    for masks in ({"attn_mask": mask}, {"is_causal": True}):
        assert torch.equal(attention(x, **masks), unread(x, **masks))
        assert model.blocks[-1](x, **masks).shape == x.shape


class Patched(nn.Identity):
    """Something that may look at all tokens at once."""


def _norm(model: nn.Module) -> None:
    model.norm = Patched()


def _forward_head(model: nn.Module) -> None:
    model.forward_head = lambda x: x.mean(dim=1)


def _attention(model: nn.Module) -> None:
    model.blocks[-1].attn = ByHand(model.blocks[-1].attn, power=1)


def _subclass(model: nn.Module) -> None:
    model.__class__ = type("Other", (type(model),), {})


def _one_more_part(model: nn.Module) -> None:
    model.blocks[-1].extra = nn.Linear(21, 21)


@pytest.mark.parametrize("patch", [_norm, _forward_head, _attention, _subclass, _one_more_part])
def test_a_model_with_unknown_parts_is_left_alone(patch):
    model = odd()
    patch(model)
    kinds = [type(module) for module in model.modules()]
    assert read_tokens_only(model) == 0
    assert [type(module) for module in model.modules()] == kinds


@pytest.mark.parametrize(
    "settings",
    [
        {"global_pool": "avg"},
        {"global_pool": "map"},
        {"global_pool": ""},
        {"global_pool": "avg", "class_token": False},
        {"block_fn": ResPostBlock},
    ],
    ids=str,
)
def test_a_model_that_reads_other_tokens_is_left_alone(settings):
    model = odd(**settings)
    before = model(pixels())
    assert read_tokens_only(model) == 0
    assert torch.equal(model(pixels()), before)


@pytest.mark.parametrize("name", ["resnet10t", "eva02_tiny_patch14_224"])
def test_other_architectures_are_left_alone(name):
    assert read_tokens_only(timm.create_model(name)) == 0
