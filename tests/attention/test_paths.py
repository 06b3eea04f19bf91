"""Softmax attention is AV and twicing attention (A + s(A - A²))V, whichever way they are computed."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import Attention
from torch import nn

from robustbench_twicing.attention.methods import mixing_of
from robustbench_twicing.attention.packed import packed_attention
from robustbench_twicing.attention.paths import (
    MethodAttention,
    choose_path,
    dropped_attention,
    explicit_attention,
    formula_attention,
    fused_attention,
    set_attention_path,
)
from robustbench_twicing.errors import UserError
from robustbench_twicing.spec.methods import SOFTMAX, Method


def packed(q, k, v, scale, mixing):
    """`packed_attention` on heads like the others."""
    qkv = torch.stack([tensor.transpose(1, 2) for tensor in (q, k, v)], dim=2)
    return packed_attention(qkv, scale, mixing.strength).transpose(1, 2)


TWICING = Method("twicing")
STRENGTHS = {"softmax": 0.0, "twicing": 1.0, "twicing(0.5)": 0.5}
METHOD = pytest.mark.parametrize("method", STRENGTHS)
explicit_twicing, fused_twicing, packed_twicing = (
    partial(attend, mixing=mixing_of(TWICING)) for attend in (explicit_attention, fused_attention, packed)
)
ALL_PATHS = pytest.mark.parametrize("attend", [explicit_attention, fused_attention, packed, formula_attention])
ALL_TWICING = pytest.mark.parametrize(
    "twicing", [explicit_twicing, fused_twicing, packed_twicing], ids=["explicit", "fused", "packed"]
)
PATHS = pytest.mark.parametrize("twicing", [explicit_twicing, fused_twicing], ids=["explicit", "fused"])


def mixing(method: str):
    return mixing_of(Method.parse(method))


TOKENS, HEAD_DIM = 7, 5
SCALE = 0.6


def qkv(seed: int = 0, sharpness: float = 2.0) -> list[torch.Tensor]:
    """q, k, v (2, 3, tokens, head_dim) in float64, with attention far from uniform."""
    generator = torch.Generator().manual_seed(seed)
    return [sharpness * torch.randn(2, 3, TOKENS, HEAD_DIM, generator=generator, dtype=torch.float64) for _ in range(3)]


def softmax_matrix(q: torch.Tensor, k: torch.Tensor, bias: np.ndarray | float = 0.0) -> np.ndarray:
    """A, from the textbook, in numpy."""
    scores = np.einsum("bhnd,bhmd->bhnm", q.numpy(), k.numpy()) * SCALE + bias
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def written_out(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: np.ndarray | float = 0.0, strength: float = 1.0
) -> np.ndarray:
    """(A + strength (A - A²))V with A² formed."""
    attn = softmax_matrix(q, k, bias)
    return (attn + strength * (attn - attn @ attn)) @ v.numpy()


# float64 rounding of sums over a handful of numbers of size 10: about 1e-14; a wrong formula misses by about 1.
EXACT = {"rtol": 0, "atol": 1e-12}


@ALL_TWICING
def test_equals_the_formula_written_out(twicing):
    q, k, v = qkv()
    np.testing.assert_allclose(twicing(q, k, v, SCALE).numpy(), written_out(q, k, v), **EXACT)
    assert np.abs(written_out(q, k, v) - softmax_matrix(q, k) @ v.numpy()).max() > 0.1  # and that is no plain attention


@ALL_TWICING
def test_rows_of_the_twicing_matrix_sum_to_one(twicing):
    q, k, v = qkv()
    ones = torch.ones_like(v)
    torch.testing.assert_close(twicing(q, k, ones, SCALE), ones, **EXACT)


@ALL_TWICING
def test_uniform_attention_is_a_fixed_point(twicing):
    """A² = A when every token looks at all tokens alike, so twicing changes nothing there."""
    q, k, v = qkv()
    mean = v.mean(dim=2, keepdim=True).expand_as(v)
    torch.testing.assert_close(twicing(torch.zeros_like(q), k, v, SCALE), mean, **EXACT)


@ALL_PATHS
@METHOD
def test_every_strength_equals_the_formula_written_out(attend, method):
    q, k, v = qkv()
    expected = written_out(q, k, v, strength=STRENGTHS[method])
    np.testing.assert_allclose(attend(q, k, v, SCALE, mixing(method)).numpy(), expected, **EXACT)


@pytest.mark.parametrize("attend", [explicit_attention, fused_attention, packed])
@pytest.mark.parametrize("method", ["softmax", "twicing"])
def test_without_a_strength_the_products_are_bit_for_bit_those_that_know_none(attend, method):
    """AV, and 2AV - A(AV) or, fused, AV + A(V - AV): as they were before twicing had a strength."""
    q, k, v = (tensor.float() for tensor in qkv())
    twice = method == "twicing"
    if attend is fused_attention:
        sdpa = partial(torch.nn.functional.scaled_dot_product_attention, q, k, scale=SCALE)
        av = sdpa(v)
        expected = av + sdpa(v - av) if twice else av
    elif attend is explicit_attention:
        attn = ((q * SCALE) @ k.transpose(-2, -1)).softmax(dim=-1)
        expected = 2 * (attn @ v) - attn @ (attn @ v) if twice else attn @ v
    else:
        heads = [tensor.flatten(0, 1) for tensor in (q, k, v)]
        scores = torch.empty(6, TOKENS, TOKENS).baddbmm_(heads[0], heads[1].transpose(1, 2), beta=0, alpha=SCALE)
        attn = scores.softmax(dim=-1)
        av = torch.bmm(attn, heads[2])
        expected = (torch.baddbmm(av, attn, av, beta=2, alpha=-1) if twice else av).unflatten(0, (2, 3))
    assert torch.equal(attend(q, k, v, SCALE, mixing(method)), expected)


@pytest.mark.parametrize("attend", [explicit_attention, fused_attention])
@METHOD
@pytest.mark.parametrize("read", [1, 2, TOKENS])
def test_tokens_that_are_read_are_the_first_of_all(attend, method, read):
    q, k, v = qkv()
    expected = written_out(q, k, v, strength=STRENGTHS[method])
    mixed = attend(q, k, v, SCALE, mixing(method), read=read)
    np.testing.assert_allclose(mixed.numpy(), expected[:, :, :read], **EXACT)


@ALL_PATHS
@METHOD
def test_gradients(attend, method):
    """Against finite differences, which know no formula."""
    q, k, v = (tensor[:1, :2, :4].requires_grad_() for tensor in qkv(sharpness=1.0))
    assert torch.autograd.gradcheck(lambda *qkv: attend(*qkv, SCALE, mixing(method)), (q, k, v))


@pytest.mark.parametrize("attend", [explicit_attention, fused_attention])
@METHOD
def test_gradients_of_the_tokens_that_are_read(attend, method):
    q, k, v = (tensor[:1, :2, :4].requires_grad_() for tensor in qkv(sharpness=1.0))
    assert torch.autograd.gradcheck(lambda *qkv: attend(*qkv, SCALE, mixing(method), read=2), (q, k, v))


@METHOD
@pytest.mark.parametrize(("batch", "tokens"), [(1, 1), (1, 257), (3, 401), (0, 5)])
def test_packed_attention_in_pieces_equals_autograd_in_one(batch, tokens, method):
    """401 tokens of two heads are more than a piece for one image, 257 leave a piece half empty."""
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(batch, tokens, 3, 2, 4, generator=generator, dtype=torch.float64).requires_grad_()
    direction = torch.randn(batch, tokens, 2, 4, generator=generator, dtype=torch.float64)
    strength = STRENGTHS[method]
    expected = explicit_attention(*qkv.permute(2, 0, 3, 1, 4).unbind(0), SCALE, mixing(method)).transpose(1, 2)
    mixed = packed_attention(qkv, SCALE, strength)
    torch.testing.assert_close(mixed, expected, **EXACT)
    gradients = [torch.autograd.grad(out, qkv, direction)[0] for out in (mixed, expected)]
    torch.testing.assert_close(*gradients, **EXACT)
    with torch.no_grad():  # another way through: nothing is kept
        torch.testing.assert_close(packed_attention(qkv, SCALE, strength), expected, **EXACT)


@pytest.mark.parametrize("strength", STRENGTHS.values())
def test_packed_attention_has_a_second_gradient(strength):
    qkv = 2 * torch.randn(1, 3, 3, 1, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.autograd.gradgradcheck(lambda qkv: packed_attention(qkv, SCALE, strength), qkv.requires_grad_())


@PATHS
def test_masks_hide_tokens_in_both_products(twicing):
    q, k, v = qkv()
    hidden = torch.tensor([2, 5])
    mask = torch.ones(TOKENS, TOKENS, dtype=torch.bool)
    mask[:, hidden] = False
    expected = written_out(q, k, v, np.where(mask.numpy(), 0.0, -np.inf))
    np.testing.assert_allclose(twicing(q, k, v, SCALE, mask=mask).numpy(), expected, **EXACT)
    added = torch.zeros(TOKENS, TOKENS, dtype=torch.float64).masked_fill(~mask, float("-inf"))
    np.testing.assert_allclose(twicing(q, k, v, SCALE, mask=added).numpy(), expected, **EXACT)


@PATHS
def test_causal_attention_never_sees_later_tokens(twicing):
    q, k, v = qkv()
    allowed = np.tril(np.ones((TOKENS, TOKENS), dtype=bool))
    expected = written_out(q, k, v, np.where(allowed, 0.0, -np.inf))
    np.testing.assert_allclose(twicing(q, k, v, SCALE, mask="causal").numpy(), expected, **EXACT)


def test_paths_agree_in_float32(capsys):
    q, k, v = (tensor.float() for tensor in qkv())
    fused = fused_twicing(q, k, v, SCALE)
    for name, twicing in (("explicit", explicit_twicing), ("packed", packed_twicing)):
        difference = (twicing(q, k, v, SCALE) - fused).abs()
        print(f"{name} - fused: max {difference.max():.2e}, mean {difference.mean():.2e}")
        # float32 rounding (6e-8) of scores up to about 30, which the softmax makes relative, times values up to 6.
        assert difference.max() < 2e-5


@METHOD
def test_packed_attention_works_under_autocast(method):
    module = MethodAttention.of(attention(), Method.parse(method)).float()
    x = tokens().float().requires_grad_()
    expected = module(x)
    (slope,) = torch.autograd.grad(expected.sum(), x)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = module(x)
        (slope_within,) = torch.autograd.grad(module(x).float().sum(), x)
    (rounded_slope,) = torch.autograd.grad(rounded.float().sum(), x)
    # bfloat16 has 8 bits: 2^-9 for each of some ten roundings on the way, with slack for the sharp softmax.
    for got, wanted in ((rounded, expected), (rounded_slope, slope), (slope_within, slope)):
        assert (got.float() - wanted).norm() < 0.1 * wanted.norm()


def test_dropout_uses_one_dropped_matrix_in_both_products():
    q, k, v = qkv()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        twicing = dropped_attention(q, k, v, SCALE, mixing_of(TWICING), 0.5).numpy()
        torch.manual_seed(3)
        dropped = torch.nn.functional.dropout(torch.from_numpy(softmax_matrix(q, k)), 0.5).numpy()
    np.testing.assert_allclose(twicing, (2 * dropped - dropped @ dropped) @ v.numpy(), **EXACT)


# --- the module --------------------------------------------------------------------------------------------------


def attention(**settings) -> Attention:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = Attention(12, num_heads=3, qkv_bias=True, **settings).double().eval()
        for parameter in module.parameters():
            nn.init.normal_(parameter)
    return module


def tokens() -> torch.Tensor:
    return torch.randn(2, TOKENS, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def by_hand(module: Attention, x: torch.Tensor) -> torch.Tensor:
    """The module's output in numpy's arithmetic, from its own qkv, norms and projection."""
    q, k, v = module.qkv(x).reshape(2, TOKENS, 3, 3, 4).permute(2, 0, 3, 1, 4).detach()
    q, k = module.q_norm(q).detach(), module.k_norm(k).detach()
    mixed = torch.from_numpy(written_out(q * (4**-0.5 / SCALE), k, v))
    return module.proj(mixed.transpose(1, 2).reshape(2, TOKENS, 12))


@pytest.mark.parametrize("path", ["auto", "explicit", "fused"])
@pytest.mark.parametrize("qk_norm", [False, True])
def test_softmax_module_equals_timms(path, qk_norm):
    plain = attention(qk_norm=qk_norm, norm_layer=nn.LayerNorm)
    ours = MethodAttention.of(plain, SOFTMAX)
    set_attention_path(ours, path)
    # As EXACT, with one more sum over the projection.
    torch.testing.assert_close(ours(tokens()), plain(tokens()), rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("path", ["auto", "explicit", "fused"])
@pytest.mark.parametrize("qk_norm", [False, True])
def test_module_keeps_the_parts_it_was_made_from(path, qk_norm):
    plain = attention(qk_norm=qk_norm, norm_layer=nn.LayerNorm)
    twicing = MethodAttention.of(plain, TWICING)
    twicing.path = path
    assert list(twicing.state_dict()) == list(plain.state_dict())
    assert all(mine is theirs for mine, theirs in zip(twicing.parameters(), plain.parameters(), strict=True))
    # As EXACT, with one more sum over the projection.
    torch.testing.assert_close(twicing(tokens()), by_hand(plain, tokens()), rtol=1e-12, atol=1e-11)


def test_module_applies_scale_norm_and_gate_where_timm_does():
    """Uniform attention is the same twice, so there the twicing module must equal timm's."""
    try:
        plain = attention(scale_norm=True, gated=True, norm_layer=nn.LayerNorm)
    except TypeError:
        pytest.skip("this timm has neither")
    with torch.no_grad():
        plain.qkv.weight[:12] = 0
        plain.qkv.bias[:12] = 0
    twicing = MethodAttention.of(plain, TWICING)
    torch.testing.assert_close(twicing(tokens()), plain(tokens()), rtol=1e-12, atol=1e-11)


def test_module_hands_masks_on():
    twicing = MethodAttention.of(attention(), TWICING)
    x, changed = tokens(), tokens()
    changed[:, -1] += 1
    torch.testing.assert_close(twicing(x, is_causal=True)[:, :-1], twicing(changed, is_causal=True)[:, :-1])
    mask = torch.ones(TOKENS, TOKENS, dtype=torch.bool)
    mask[:-1, -1] = False
    torch.testing.assert_close(twicing(x, attn_mask=mask)[:, :-1], twicing(changed, attn_mask=mask)[:, :-1])
    assert (twicing(x)[:, :-1] - twicing(changed)[:, :-1]).abs().max() > 1e-3


def test_dropout_acts_in_training_only():
    twicing = MethodAttention.of(attention(attn_drop=0.5), TWICING)
    twicing.path = "fused"  # cannot drop; training must not use it silently
    torch.testing.assert_close(twicing(tokens()), twicing(tokens()), rtol=0, atol=0)
    with torch.random.fork_rng(devices=[]):
        twicing.train()
        assert (twicing(tokens()) - twicing(tokens())).abs().max() > 1e-3


def test_path_is_the_callers_unless_dropout_needs_the_matrix():
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert choose_path("auto", cpu, 0.0) == "explicit"
    assert choose_path("auto", cuda, 0.0) == "fused"
    assert choose_path("fused", cpu, 0.0) == "fused"
    assert choose_path("fused", cuda, 0.1) == "explicit"


def test_set_attention_path_reaches_plain_and_twicing_modules(monkeypatch):
    plain, twicing = attention(), MethodAttention.of(attention(), TWICING)
    model = nn.Sequential(plain, MethodAttention.of(attention(), SOFTMAX), twicing)
    fused_calls = []
    sdpa = torch.nn.functional.scaled_dot_product_attention

    def counting(*args, **kwargs):
        fused_calls.append(args)
        return sdpa(*args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counting)
    outputs = []
    for path, calls in (("explicit", 0), ("fused", 4)):
        fused_calls.clear()
        set_attention_path(model, path)
        outputs.append(model(tokens()))
        assert len(fused_calls) == calls
    torch.testing.assert_close(*outputs, rtol=1e-12, atol=1e-10)
    with pytest.raises(UserError, match="fastest"):
        set_attention_path(model, "fastest")


def test_refuses_what_is_not_exactly_timms_attention():
    class Other(Attention):
        def forward(self, x):
            return x

    other = attention()
    other.__class__ = Other
    with pytest.raises(UserError, match="Other"):
        MethodAttention.of(other, TWICING)
    grown = copy.deepcopy(attention())
    grown.sink = nn.Linear(2, 2)
    with pytest.raises(UserError, match="sink"):
        MethodAttention.of(grown, TWICING)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@PATHS
def test_equals_the_formula_written_out_on_cuda(twicing):
    q, k, v = qkv()
    result = twicing(*(tensor.cuda() for tensor in (q, k, v)), SCALE)
    np.testing.assert_allclose(result.cpu().numpy(), written_out(q, k, v), **EXACT)
