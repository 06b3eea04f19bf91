"""How far a measured accuracy, or a difference of two, may lie from the true one. See docs/statistics.md."""

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import betaincinv, stdtrit

from robustbench_twicing.errors import UserError


class Interval(NamedTuple):
    """A confidence interval, ends included."""

    low: float
    high: float


class Estimate(NamedTuple):
    """A figure, with its interval."""

    value: float
    interval: Interval


def wilson_interval(right: int, n: int, level: float = 0.95) -> Interval:
    """Two-sided interval for one accuracy of `right` out of `n` independent samples, inside [0, 1].

    The score interval of Wilson (1927, JASA 22:209-212), without continuity correction: all p that a z test
    with variance p (1 - p) / n does not reject. Recommended over p ± z·se by Brown, Cai and DasGupta (2001, Statistical
    Science 16:101-133). n = 0 tells nothing: (0, 1).
    """
    if n == 0:
        return Interval(0.0, 1.0)
    z = _z(level)
    p = right / n
    middle = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)
    scale = 1 + z * z / n
    # At the ends the formula is exact in theory; rounding must not push it past them.
    low = 0.0 if right == 0 else (middle - half) / scale
    high = 1.0 if right == n else (middle + half) / scale
    return Interval(low, high)


def most_wrong(wrong: int, checked: int, of: int, level: float = 0.95) -> float:
    """The largest share of `of` records that may be wrong if `wrong` of `checked` random ones were found to be.

    The upper end of the exact binomial interval of Clopper and Pearson (1934, Biometrika 26:404-413), one-sided: a
    larger share shows so few wrong ones with a probability of 1 - level at most. Drawing without replacement can only
    make that less. 1 if nothing was checked, exact if everything was.
    """
    if checked == of:
        return wrong / of if of else 1.0
    return 1.0 if wrong == checked else float(betaincinv(wrong + 1, checked - wrong, level))


def paired_score(lost: int, gained: int, n: int, difference: float) -> float:
    """Standard normal score of the hypothesis that the true difference of two paired accuracies is `difference`.

    Of `n` samples, `lost` are right only for the baseline and `gained` only for the candidate; the difference is
    candidate minus baseline. Positive when the observed difference is larger than `difference`. The variance is that of
    the most likely probabilities under the hypothesis (Tango 1998, Statistics in Medicine 17:891-908). At
    difference 0 its square is McNemar's chi-square without continuity correction.
    """
    gap = (gained - lost) / n - difference
    if gap == 0:
        return 0.0
    # Most likely P(only the baseline is right): the larger root of 2n q² + b q + c = 0.
    b = -(gained + lost) + (2 * n - gained + lost) * difference
    c = -lost * difference * (1 - difference)
    root = math.sqrt(max(b * b - 8 * n * c, 0.0)) if c else abs(b)  # the square of a tiny b is 0
    q = (root - b) / (4 * n) if b <= 0 else -2 * c / (root + b)  # the second form avoids cancellation
    variance = (2 * q + difference * (1 - difference)) / n
    return gap / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, gap)


def finite_population_factor(n: int, available: int) -> float:
    """How much narrower an interval is, in [0, 1], if it is about the `available` samples from which `n` were drawn.

    √((N - n)/(N - 1)): the standard error without replacement (Cochran 1977, Sampling Techniques, section 2.7). 0 if
    all were drawn: nothing is left to infer.
    """
    return math.sqrt((available - n) / (available - 1)) if available > 1 else 0.0


def paired_difference_interval(lost: int, gained: int, n: int, level: float = 0.95) -> Interval:
    """Two-sided interval for a difference of two accuracies on the same `n` samples, inside [-1, 1].

    Tango's (1998) score interval: every difference that `paired_score` does not reject. Chosen over Newcombe's (1998)
    method 10 because it comes from the same test as McNemar's, so interval and p rarely disagree, because it only needs
    the flips, and because it stays sensible without any flip (±z² / (n + z²)). Fagerland, Lydersen and Laake (2014,
    Statistics in Medicine 33:2850-2875) find both to cover well. n = 0 tells nothing: (-1, 1).
    """
    if n == 0:
        return Interval(-1.0, 1.0)
    low = _lower_end(lost, gained, n, _z(level))
    high = -_lower_end(gained, lost, n, _z(level))  # exchanging the models mirrors the interval
    return Interval(low, high)


def _lower_end(lost: int, gained: int, n: int, z: float) -> float:
    observed = (gained - lost) / n
    if observed == -1:
        return -1.0
    # The score falls steadily from infinity at -1 to 0 at the observed difference. By halving, since importing
    # scipy.optimize takes longer than a report needs for all of its intervals.
    low, high = -1 + 1e-12, observed
    while high - low > 1e-13:
        middle = (low + high) / 2
        if paired_score(lost, gained, n, middle) > z:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _z(level: float) -> float:
    return NormalDist().inv_cdf((1 + level) / 2)


def unpaired_difference_interval(right: int, n: int, right_before: int, n_before: int, level: float = 0.95) -> Interval:
    """Two-sided interval for the difference of two accuracies on different samples: right/n - right_before/n_before.

    Newcombe (1998, Statistics in Medicine 17:873-890), method 10: from both Wilson intervals. (-1, 1) if either side
    has no sample.
    """
    if not n or not n_before:
        return Interval(-1.0, 1.0)
    here, before = right / n, right_before / n_before
    (low, high), (low_before, high_before) = (
        wilson_interval(*side, level) for side in ((right, n), (right_before, n_before))
    )
    difference = here - before
    return Interval(
        difference - math.hypot(here - low, high_before - before),
        difference + math.hypot(high - here, before - low_before),
    )


def mean_interval(values: Float[np.ndarray, " images"], reach: tuple[float, float], level: float = 0.95) -> Interval:
    """Two-sided interval for the mean of one value per image, such as an area under a curve, or its mCE.

    `reach` is the least and the largest value that an image can have. The interval is Student's, of the values and two
    pseudo-images at both ends of it. That is what adding a success and a failure does for a proportion (Agresti and
    Caffo 2000, The American Statistician 54:280-288). Without them, and with a bootstrap, the interval of nearly
    constant values is far too narrow, or has no width at all. See docs/statistics.md for how often it covers.
    Classes are not told apart, which can only widen it. Raises `UserError` below two images.
    """
    if len(values) < 2:
        raise UserError(
            f"An interval needs at least 2 samples, not {len(values)}.", "Evaluate more samples: raise --limit."
        )
    padded = np.append(values, reach)
    half = stdtrit(len(padded) - 1, (1 + level) / 2) * padded.std(ddof=1) / math.sqrt(len(padded))
    middle = padded.mean()
    return Interval(max(float(middle - half), reach[0]), min(float(middle + half), reach[1]))
