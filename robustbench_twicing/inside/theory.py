"""The paper's idealised setting, computed: how fast a repeated filter loses capacity, and how biased a smoother is.

Abdullaev & Nguyen 2025 (arXiv 2503.00687) take one symmetric operator with eigenvalues x in [0, 1] and apply it n
times: softmax attention leaves p_n(x) = x^n of an eigenvalue, twicing (2x - x²)^n. The capacity that is left is the
integral over x. No torch.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.integrate import quad
from scipy.special import beta, gamma


class Capacity(NamedTuple):
    """What is left after n applications."""

    n: int
    softmax: float
    """κ_n = ∫₀¹ xⁿ dx = 1/(n + 1)."""
    twicing: float
    """∫₀¹ (2x - x²)ⁿ dx = ½ B(½, n + 1)."""
    twicing_limit: float
    """√π/(2√n), which the former approaches."""


class Bias(NamedTuple):
    """The bias of Nadaraya-Watson smoothing of a sine over the circle, at a bandwidth."""

    bandwidth: float
    plain: float
    """Simulated: over many draws of noise, how much of the sine the smoother takes away."""
    twicing: float
    plain_exact: float
    """1 - g, g = exp(-(2π bandwidth)²/2) being the kernel's own transform at the sine's frequency."""
    twicing_exact: float
    """(1 - g)²."""
    error: float
    """Standard error of the simulated values."""


def capacity(n: int, order: int = 1) -> float:
    """∫₀¹ (1 - (1 - x)^order)ⁿ dx = B(1/order, n + 1)/order: softmax is order 1, twicing 2 (`folded` has more).

    Substitute u = (1 - x)^order. It approaches Γ(1 + 1/order) n^(-1/order).
    """
    return float(beta(1 / order, n + 1)) / order


def capacity_limit(n: int, order: int = 1) -> float:
    """What `capacity` approaches as n grows."""
    return float(gamma(1 + 1 / order)) * math.pow(n, -1 / order)


def integrated(n: int, strength: float) -> float:
    """∫₀¹ (x + strength (x - x²))ⁿ dx, numerically.

    Below strength 1 the filter's slope at x = 1 is 1 - strength, so that this falls as 1/((1 - strength) n): at the
    rate of softmax attention. Only strength 1 has another rate.
    """
    # Nearly all of it lies within a few 1/√n of x = 1.
    edge = max(0.0, 1 - 12 / math.sqrt(n))
    parts = [(0.0, edge), (edge, 1.0)] if edge else [(0.0, 1.0)]

    def left(x: float) -> float:
        return math.pow(x + strength * (x - x * x), n)

    return float(sum(quad(left, *ends, epsabs=0, epsrel=1e-10, limit=200)[0] for ends in parts))


def capacities(numbers: Sequence[int]) -> list[Capacity]:
    """Both capacities after each number of applications."""
    return [Capacity(n, capacity(n), capacity(n, 2), capacity_limit(n, 2)) for n in numbers]


def biases(bandwidths: Sequence[float], seed: int = 0, points: int = 200, draws: int = 2000) -> list[Bias]:
    """Smooth a noisy sine on the circle with Gaussian weights K, and with 2K - K∗K, `draws` times.

    The smoother is softmax attention whose scores are negative squared distances over 2 bandwidth². The noise has
    standard deviation 0.1.
    """
    generator = np.random.default_rng(seed)
    place = np.arange(points) / points
    signal = np.sin(2 * np.pi * place)
    apart = np.abs(place[:, None] - place[None, :])
    apart = np.minimum(apart, 1 - apart)
    found = []
    for bandwidth in bandwidths:
        weights = np.exp(-(apart**2) / (2 * bandwidth**2))
        weights /= weights.sum(1, keepdims=True)
        noisy = signal + 0.1 * generator.standard_normal((draws, points))
        once = noisy @ weights.T
        twice = once + (noisy - once) @ weights.T
        # The part of the sine that is missing, by regression on it.
        missing = [1 - (smoothed @ signal) / (signal @ signal) for smoothed in (once, twice)]
        g = math.exp(-((2 * math.pi * bandwidth) ** 2) / 2)
        error = max(float(values.std(ddof=1)) for values in missing) / math.sqrt(draws)
        plain, twicing = (float(values.mean()) for values in missing)
        found.append(Bias(bandwidth, plain, twicing, 1 - g, (1 - g) ** 2, error))
    return found


def order_of(values: Sequence[float], sizes: Sequence[float]) -> float:
    """The power of `sizes` that `values` follow: the slope of a straight line through their logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])
