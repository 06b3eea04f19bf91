"""Whether the accuracy on the same samples dropped by more than a tolerance, or by less: exact tests of paired answers.

Of n samples, `lost` are right only for the baseline and `gained` only for the candidate; the drop is the true share of
the lost minus that of the gained. A hypothesis about the drop leaves open how many samples change sides at all. The
tests here are exact and unconditional: p is the largest probability, over every such share, of what is at least as far
from the hypothesis as what was seen. "As far" is ordered by the signed root of the likelihood ratio, which Lloyd and
Moldovan (2007, Statistics in Medicine 26:3369-3384) recommend for exact limits of matched pairs. The share is searched
in its own exact interval of level 1 - GAMMA, and GAMMA is added to p (Berger and Boos 1994, JASA 89:1012-1016): the
level is kept, and far shares cost no power. See docs/gate.md.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from jaxtyping import Int
from scipy.special import bdtrc, betaincinv, gammaln, ndtr, rel_entr, xlog1py, xlogy

GAMMA = 1e-5
"""Probability, at most, that the share of samples that change sides lies outside of where it is searched."""

_SHARES = 40
"""Shares that are tried, evenly in units of their standard error; then `_BETWEEN` in the neighbourhood of the worst."""
_BETWEEN = 17
_FAR = 6.5
"""Standard errors beyond which a binomial count is left out: 8e-11."""
_NOTHING = 1e-14
"""Weight of a count that is left out."""
_TIE = 1e-9
"""Scores this close are one."""
_Tail = Callable[[float, np.ndarray, np.ndarray], np.ndarray]
"""Of the samples gained, given the share and the number of those that change sides and the fewest gained."""

_HOPELESS = 0.3
"""No exact p is computed where the asymptotic one is larger: no level in use comes near."""


@lru_cache(maxsize=4096)
def ruled_out_p(lost: int, gained: int, n: int, drop: float) -> float:
    """One-sided exact p of "the accuracy dropped by `drop` or more"; small: it did not. 0 < `drop` < 1; n >= 1.

    Rejecting at p <= alpha is wrong with probability at most alpha, for every n and however many samples change sides.
    Where none does, p is (1 - drop)^n + GAMMA. From about 0.3 on the asymptotic p is returned.
    """
    score = float(_score(np.array(lost), np.array(gained), n, drop))
    if (asymptotic := float(ndtr(-score))) > _HOPELESS:
        return asymptotic

    def tail(share: float, sides: np.ndarray, least: np.ndarray) -> np.ndarray:
        gain = (share - drop) / (2 * share)  # of a sample that changes sides, on the hypothesis' edge
        return np.asarray(bdtrc(least - 1.0, sides, max(gain, 0.0)))

    low, high = _share_interval(lost + gained, n)
    if high < drop:  # so many would have to change sides
        return GAMMA
    return _largest(tail, (max(low, drop), high), n, drop, score - _TIE)


@lru_cache(maxsize=4096)
def exceeded_p(lost: int, gained: int, n: int, drop: float) -> float:
    """One-sided exact p of "the accuracy dropped by `drop` or less"; small: it dropped by more. Else as `ruled_out_p`.

    `drop` in [0, 1).
    """
    score = float(_score(np.array(lost), np.array(gained), n, drop))
    if (asymptotic := float(ndtr(score))) > _HOPELESS:
        return asymptotic

    def tail(share: float, sides: np.ndarray, least: np.ndarray) -> np.ndarray:
        loss = (share + min(drop, share)) / (2 * share)
        return np.asarray(bdtrc((sides - least).astype(float), sides, loss))

    interval = _share_interval(lost + gained, n)
    return _largest(tail, interval, n, drop, score + _TIE)


def fewest_samples(drop: float, alpha: float) -> int:
    """Samples with which `ruled_out_p` can be `alpha` at all: so many are needed where none changes sides.

    The least n with (1 - drop)^n + GAMMA <= alpha: the drop that n identical answers rule out is 1 - alpha^(1/n).
    """
    return max(1, math.ceil(math.log(alpha - GAMMA) / math.log1p(-drop)))


def _score(lost: np.ndarray, gained: np.ndarray, n: int, drop: float) -> np.ndarray:
    """Signed root of the likelihood ratio; positive where the drop seen is smaller than `drop`. Standard normal in
    large samples.
    """
    # The likeliest share of lost samples on the hypothesis: the root of Tango (1998), `intervals.paired_score`.
    linear = -(gained + lost) - (2 * n - gained + lost) * drop
    constant = lost * drop * (1 + drop)
    root = np.sqrt(np.maximum(linear * linear - 8.0 * n * constant, 0.0))
    lost_share = (root - linear) / (4.0 * n)
    gained_share = np.maximum(lost_share - drop, 0.0)
    rest_share = np.maximum(1 - lost_share - gained_share, 0.0)
    seen = ((lost, lost_share), (gained, gained_share), (n - lost - gained, rest_share))
    ratio = n * sum(rel_entr(count / n, share) for count, share in seen)
    return np.asarray(np.sign(drop - (lost - gained) / n) * np.sqrt(2 * np.maximum(ratio, 0.0)))


def _share_interval(sides: int, n: int) -> tuple[float, float]:
    """Exact two-sided interval of level 1 - GAMMA (Clopper and Pearson 1934) for the share that changes sides."""
    low = float(betaincinv(sides, n - sides + 1, GAMMA / 2)) if sides else 0.0
    high = float(betaincinv(sides + 1, n - sides, 1 - GAMMA / 2)) if sides < n else 1.0
    return low, high


def _largest(tail: _Tail, interval: tuple[float, float], n: int, drop: float, bound: float) -> float:
    """Largest probability, over the shares in `interval`, of what lies beyond `bound`; and GAMMA."""
    spread = [_FAR * math.sqrt(n * share * (1 - share)) + 20 for share in interval]
    low, high = n * interval[0] - spread[0], n * interval[1] + spread[1]
    sides = np.arange(max(0, math.floor(low)), min(n, math.ceil(high)) + 1)
    least = _least_gained(sides, n, drop, bound)
    choose = gammaln(n + 1) - gammaln(sides + 1) - gammaln(n - sides + 1)

    def at(angle: float) -> float:
        share = max(math.sin(angle) ** 2, 1e-12)
        weight = np.exp(choose + xlogy(sides, share) + xlog1py(n - sides, -share))
        some = weight > _NOTHING
        return float(weight[some] @ tail(share, sides[some], least[some]))

    # Evenly in the angle whose sine is the root of the share: there its standard error is the same everywhere.
    first, last = (math.asin(math.sqrt(share)) for share in interval)
    angles = np.linspace(first, last, _SHARES)
    found = [at(angle) for angle in angles]
    worst = int(np.argmax(found))
    between = np.linspace(angles[max(worst - 1, 0)], angles[min(worst + 1, _SHARES - 1)], _BETWEEN)
    return min(1.0, max(found[worst], *(at(angle) for angle in between)) + GAMMA)


def _least_gained(sides: Int[np.ndarray, " counts"], n: int, drop: float, bound: float) -> Int[np.ndarray, " counts"]:
    """For each number of samples that change sides, the fewest gained of which the score is `bound` or more.

    `sides` + 1 where none is. The score grows with what is gained.
    """
    low, high = np.zeros_like(sides), sides + 1
    while (low < high).any():
        middle = (low + high) // 2
        enough = _score(sides - middle, np.minimum(middle, sides), n, drop) >= bound
        enough |= middle > sides
        low, high = np.where(enough, low, middle + 1), np.where(enough, middle, high)
        low = np.minimum(low, high)
    return low
