"""Matrix products through the oneDNN that comes with torch, on a CPU.

torch itself multiplies float32 matrices with MKL, which leaves half of an AMD core unused: 115 GFLOP/s against oneDNN's
250 on an EPYC, torch 2.14 (benchmarks/README.md). bfloat16 it gives to oneDNN as well, but adds the bias in a pass of
its own.
"""

from functools import cache
from typing import NamedTuple, cast

import torch
from torch.nn import functional as F


class Finish(NamedTuple):
    """What becomes of each value of a product, in oneDNN's terms, before it is written."""

    operation: str = "none"
    numbers: tuple[float, ...] = ()
    algorithm: str = ""


AS_IT_IS = Finish()
GELU = {"none": Finish("gelu", (), "none"), "tanh": Finish("gelu", (), "tanh")}
"""By the name that `torch.nn.GELU` gives the approximation."""


def clamped(low: float, high: float) -> Finish:
    """Not below `low`, not above `high`."""
    return Finish("hardtanh", (low, high))


@cache
def available(dtype: torch.dtype = torch.float32) -> bool:
    """torch's oneDNN has the operation and computes it right; it is not part of torch's public interface."""
    if dtype not in (torch.float32, torch.bfloat16) or not torch.backends.mkldnn.is_available():
        return False
    generator = torch.Generator().manual_seed(0)
    shapes = ((5, 7, 33), (17, 33), (17,))
    inputs, weight, bias = (torch.randn(shape, generator=generator).to(dtype) for shape in shapes)
    try:
        found = (
            product(inputs, weight, bias),
            product(inputs, weight, bias, clamped(-0.5, 1.0)),
            product(inputs, weight, bias, GELU["none"]),
            product(product(inputs, weight, None), weight.t(), None),
        )
    except (AttributeError, RuntimeError, TypeError):
        return False
    inputs, weight, bias = inputs.float(), weight.float(), bias.float()
    plain = F.linear(inputs, weight, bias)
    expected = (plain, plain.clamp(-0.5, 1.0), F.gelu(plain), F.linear(F.linear(inputs, weight), weight.t()))
    # Sums of 33, and of 17 x 33, products of numbers of size one, rounded to 24 or 8 bits.
    rtol, atol = (1e-4, 1e-4) if dtype == torch.float32 else (0.02, 0.5)
    return all(torch.allclose(ours.float(), theirs, rtol, atol) for ours, theirs in zip(found, expected, strict=True))


def product(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, finish: Finish = AS_IT_IS
) -> torch.Tensor:
    """(..., inputs) times (outputs, inputs), by the operation that torch's own compiler uses for linear layers.

    On a CPU, for a type that is `available`. No gradient.
    """
    if finish == AS_IT_IS and torch.compiler.is_compiling():
        result: torch.Tensor = _product_as_one(x, weight, bias)
        return result
    return _multiply(x, weight, bias, finish)


def _multiply(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, finish: Finish) -> torch.Tensor:
    operation, numbers, algorithm = finish
    multiplied = torch.ops.mkldnn._linear_pointwise.default(x, weight, bias, operation, list(numbers), algorithm)
    return cast(torch.Tensor, multiplied)


@torch.library.custom_op("robustbench_twicing::product", mutates_args=())
def _product_as_one(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """`product` as torch.compile can take it, which knows the operation behind it only with packed weights.

    It may run while another thread compiles, so it does not ask whether somebody does.
    """
    return _multiply(x, weight, bias, AS_IT_IS)


@_product_as_one.register_fake
def _(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])
