"""Twicing attention is (2A - A²)V, whichever way it is computed."""

import copy

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import Attention
from torch import nn

from robustbench_twicing.errors import UserError
from robustbench_twicing.models.attention import (
    TwicingAttention,
    choose_path,
    explicit_twicing,
    fused_twicing,
    set_attention_path,
)

PATHS = pytest.mark.parametrize("twicing", [explicit_twicing, fused_twicing], ids=["explicit", "fused"])
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


def written_out(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: np.ndarray | float = 0.0) -> np.ndarray:
    """(2A - A²)V with A² formed."""
    attn = softmax_matrix(q, k, bias)
    return (2 * attn - attn @ attn) @ v.numpy()


# float64 rounding of sums over a handful of numbers of size 10: about 1e-14; a wrong formula misses by about 1.
EXACT = {"rtol": 0, "atol": 1e-12}


@PATHS
def test_equals_the_formula_written_out(twicing):
    q, k, v = qkv()
    np.testing.assert_allclose(twicing(q, k, v, SCALE).numpy(), written_out(q, k, v), **EXACT)
    assert np.abs(written_out(q, k, v) - softmax_matrix(q, k) @ v.numpy()).max() > 0.1  # and that is no plain attention


@PATHS
def test_rows_of_the_twicing_matrix_sum_to_one(twicing):
    q, k, v = qkv()
    ones = torch.ones_like(v)
    torch.testing.assert_close(twicing(q, k, ones, SCALE), ones, **EXACT)


@PATHS
def test_uniform_attention_is_a_fixed_point(twicing):
    """A² = A when every token looks at all tokens alike, so twicing changes nothing there."""
    q, k, v = qkv()
    mean = v.mean(dim=2, keepdim=True).expand_as(v)
    torch.testing.assert_close(twicing(torch.zeros_like(q), k, v, SCALE), mean, **EXACT)


@PATHS
def test_gradients(twicing):
    q, k, v = (tensor[:1, :1, :4].requires_grad_() for tensor in qkv(sharpness=1.0))
    assert torch.autograd.gradcheck(lambda *qkv: twicing(*qkv, SCALE), (q, k, v))


@PATHS
def test_masks_hide_tokens_in_both_products(twicing):
    q, k, v = qkv()
    hidden = torch.tensor([2, 5])
    mask = torch.ones(TOKENS, TOKENS, dtype=torch.bool)
    mask[:, hidden] = False
    expected = written_out(q, k, v, np.where(mask.numpy(), 0.0, -np.inf))
    np.testing.assert_allclose(twicing(q, k, v, SCALE, attn_mask=mask).numpy(), expected, **EXACT)
    added = torch.zeros(TOKENS, TOKENS, dtype=torch.float64).masked_fill(~mask, float("-inf"))
    np.testing.assert_allclose(twicing(q, k, v, SCALE, attn_mask=added).numpy(), expected, **EXACT)


@PATHS
def test_causal_attention_never_sees_later_tokens(twicing):
    q, k, v = qkv()
    allowed = np.tril(np.ones((TOKENS, TOKENS), dtype=bool))
    expected = written_out(q, k, v, np.where(allowed, 0.0, -np.inf))
    np.testing.assert_allclose(twicing(q, k, v, SCALE, is_causal=True).numpy(), expected, **EXACT)


def test_paths_agree_in_float32(capsys):
    q, k, v = (tensor.float() for tensor in qkv())
    difference = (explicit_twicing(q, k, v, SCALE) - fused_twicing(q, k, v, SCALE)).abs()
    print(f"explicit - fused: max {difference.max():.2e}, mean {difference.mean():.2e}")
    # float32 rounding (6e-8) of scores up to about 30, which the softmax makes relative, times values up to about 6.
    assert difference.max() < 2e-5


def test_dropout_uses_one_dropped_matrix_in_both_products():
    q, k, v = qkv()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        twicing = explicit_twicing(q, k, v, SCALE, dropout=0.5).numpy()
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
def test_module_keeps_the_parts_it_was_made_from(path, qk_norm):
    plain = attention(qk_norm=qk_norm, norm_layer=nn.LayerNorm)
    twicing = TwicingAttention.of(plain)
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
    twicing = TwicingAttention.of(plain)
    torch.testing.assert_close(twicing(tokens()), plain(tokens()), rtol=1e-12, atol=1e-11)


def test_module_hands_masks_on():
    twicing = TwicingAttention.of(attention())
    x, changed = tokens(), tokens()
    changed[:, -1] += 1
    torch.testing.assert_close(twicing(x, is_causal=True)[:, :-1], twicing(changed, is_causal=True)[:, :-1])
    mask = torch.ones(TOKENS, TOKENS, dtype=torch.bool)
    mask[:-1, -1] = False
    torch.testing.assert_close(twicing(x, attn_mask=mask)[:, :-1], twicing(changed, attn_mask=mask)[:, :-1])
    assert (twicing(x)[:, :-1] - twicing(changed)[:, :-1]).abs().max() > 1e-3


def test_dropout_acts_in_training_only():
    twicing = TwicingAttention.of(attention(attn_drop=0.5))
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
    plain, twicing = attention(), TwicingAttention.of(attention())
    model = nn.Sequential(plain, twicing)
    fused_calls = []
    sdpa = torch.nn.functional.scaled_dot_product_attention

    def counting(*args, **kwargs):
        fused_calls.append(args)
        return sdpa(*args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counting)
    outputs = []
    for path, calls in (("explicit", 0), ("fused", 3)):
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
        TwicingAttention.of(other)
    grown = copy.deepcopy(attention())
    grown.sink = nn.Linear(2, 2)
    with pytest.raises(UserError, match="sink"):
        TwicingAttention.of(grown)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@PATHS
def test_equals_the_formula_written_out_on_cuda(twicing):
    q, k, v = qkv()
    result = twicing(*(tensor.cuda() for tensor in (q, k, v)), SCALE)
    np.testing.assert_allclose(result.cpu().numpy(), written_out(q, k, v), **EXACT)
