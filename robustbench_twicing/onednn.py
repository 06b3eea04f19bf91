"""Float32 matrix products through the oneDNN that comes with torch, on a CPU.

torch itself multiplies float32 matrices with MKL, which leaves half of an AMD core unused: 115 GFLOP/s against oneDNN's
250 on an EPYC, torch 2.14 (benchmarks/README.md).
"""

from functools import cache
from typing import cast

import torch
from torch.nn import functional as F


@cache
def available() -> bool:
    """torch's oneDNN has the operation and computes it right; it is not part of torch's public interface."""
    if not torch.backends.mkldnn.is_available():
        return False
    generator = torch.Generator().manual_seed(0)
    inputs, weight, bias = (torch.randn(shape, generator=generator) for shape in ((5, 7, 33), (17, 33), (17,)))
    try:
        found = (product(inputs, weight, bias), product(product(inputs, weight, None), weight.t(), None))
    except (AttributeError, RuntimeError, TypeError):
        return False
    expected = (F.linear(inputs, weight, bias), F.linear(F.linear(inputs, weight), weight.t()))
    # Sums of 33 and 17 x 33 products of numbers of size one, in float32.
    return all(torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4) for ours, theirs in zip(found, expected, strict=True))


def product(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, limits: tuple[float, float] | None = None
) -> torch.Tensor:
    """(..., inputs) times (outputs, inputs), by the operation that torch's own compiler uses for linear layers.

    Where `available`, for float32 on a CPU. The result is clamped to `limits`, lowest and highest. No gradient.
    """
    if limits is None and torch.compiler.is_compiling():
        return _product_as_one(x, weight, bias)
    return _multiply(x, weight, bias, limits)


def _multiply(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, limits: tuple[float, float] | None
) -> torch.Tensor:
    activation = ("hardtanh", list(limits), "") if limits else ("none", [], "")
    return cast(torch.Tensor, torch.ops.mkldnn._linear_pointwise.default(x, weight, bias, *activation))


@torch.library.custom_op("robustbench_twicing::product", mutates_args=())
def _product_as_one(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """`product` as torch.compile can take it, which knows the operation behind it only with packed weights.

    It may run while another thread compiles, so it does not ask whether somebody does.
    """
    return _multiply(x, weight, bias, None)


@_product_as_one.register_fake
def _(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])
