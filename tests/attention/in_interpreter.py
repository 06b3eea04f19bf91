"""The Triton kernel in Triton's interpreter; `test_on_chip.py` runs it, in a process where the variable is set."""

import copy

import pytest
import torch

from robustbench_twicing import apply_method
from robustbench_twicing.attention.on_chip import INTERPRETED, fits, on_chip_attention
from robustbench_twicing.attention.packed import packed_attention
from robustbench_twicing.attention.paths import set_attention_path
from robustbench_twicing.models.faster.last_block import read_tokens_only
from tests.attention.small import small

CASES = [
    ((2, 7, 2, 5), 0.5, torch.float32),
    ((1, 70, 1, 20), 1.0, torch.float32),
    ((1, 70, 1, 20), 1.0, torch.bfloat16),
    ((1, 21, 1, 16), 0.0, torch.bfloat16),
    ((1, 1, 1, 4), 1.0, torch.float32),
]
"""(batch, tokens, heads, head_dim), strength and precision: sizes that are no powers of two, one block of rows and
several (70), and a lone token."""

NEAR = {
    torch.float32: 2e-6,  # rounding, 6e-8, of scores up to about 30, which the softmax makes relative
    torch.bfloat16: 2e-2,  # 8 bits: 2^-8 a rounding, which the interpreter cuts off instead; about three in a row
}


def random(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize(("shape", "strength", "dtype"), CASES)
def test_output_and_gradients_are_those_of_float64(shape, strength, dtype) -> None:
    assert INTERPRETED
    batch, tokens, heads, head_dim = shape
    qkv = (2 * random((batch, tokens, 3, heads, head_dim), 0)).to(dtype).requires_grad_()
    direction = random((batch, tokens, heads, head_dim), 1, dtype)
    exact = qkv.detach().double().requires_grad_()
    assert fits(qkv)
    out, expected = (
        attend(given, head_dim**-0.5, strength)
        for attend, given in ((on_chip_attention, qkv), (packed_attention, exact))
    )
    (gradient,) = torch.autograd.grad(out, qkv, direction)
    (slope,) = torch.autograd.grad(expected, exact, direction.double())
    for what, found, wanted in (
        ("output", out, expected),
        *zip("qkv", gradient.unbind(2), slope.unbind(2), strict=True),
    ):
        off = float(
            (found - wanted).detach().norm() / max(float(wanted.detach().norm()), 1e-3)
        )  # a lone token's q and k have no gradient
        print(f"{what} {shape} {strength} {dtype}: {off:.1e}")
        assert off < NEAR[dtype], what


def test_there_is_a_second_gradient() -> None:
    qkv, direction = random((1, 5, 3, 1, 4), 0).requires_grad_(), random((1, 5, 1, 4), 1)
    seconds = []
    for attend in (on_chip_attention, packed_attention):
        (first,) = torch.autograd.grad(attend(qkv, 0.5, 1.0), qkv, direction, create_graph=True)
        seconds.append(torch.autograd.grad(first.square().sum(), qkv)[0])
    torch.testing.assert_close(*seconds, rtol=1e-4, atol=1e-5)


def test_a_network_on_this_path_is_the_same_network() -> None:
    """What the kernel cannot do (the tokens that are read, another method) goes along the fused path."""
    model = apply_method(small(num_heads=1, embed_dim=12, depth=3), "twicing(0.5)@0,2+neutreno@1")
    read_tokens_only(model)
    found = []
    for path in ("explicit", "triton"):
        set_attention_path(model, path)
        images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
        logits = copy.deepcopy(model)(images)
        found.append((logits, *torch.autograd.grad(logits.square().sum(), images)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert not fits(torch.zeros(1, 257, 3, 1, 4))
    assert not fits(torch.zeros(1, 5, 3, 1, 4, dtype=torch.float64))
