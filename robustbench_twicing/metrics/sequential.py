"""Verdicts that hold however often somebody looks, adds images and looks again.

The exact test of `metrics.verdict` promises its level for a number of samples chosen beforehand. Who looks after every
hundred images and stops at the first small p is wrong far more often. See docs/statistics.md for both error rates.
"""

import math

from scipy.special import betaln

from robustbench_twicing.metrics.intervals import Interval
from robustbench_twicing.metrics.paired import Flips

_TUNED_FOR = 2_000
"""Samples at which `confidence_sequence` is about as narrow as it can be; for others it is a little wider."""


def always_valid_p(lost: int, gained: int) -> float:
    """p of "a sample that changes sides is as often lost as gained", valid at every look (Robbins 1970).

    One over the likelihood of the flips with the share gained uniform on [0, 1], by that of a fair coin: a mixture
    martingale, which exceeds 1/alpha at any time with probability alpha at most (Ville 1939; Robbins 1970, Annals of
    Mathematical Statistics 41:1397-1409; Howard et al. 2021, Annals of Statistics 49:1055-1080). It takes the samples
    to come in random order.
    """
    evidence = (lost + gained) * math.log(2) + float(betaln(gained + 1, lost + 1))
    return min(1.0, math.exp(-max(evidence, 0.0)))


def confidence_sequence(flips: Flips, level: float = 0.95) -> Interval:
    """An interval for the difference of two accuracies on the same samples that holds at all looks together.

    The asymptotic confidence sequence of Waudby-Smith et al. (2024, Annals of Statistics 52:2613-2640, theorem 2.2),
    with two pseudo-images at -1 and 1 in its variance, as in `intervals.mean_interval`. Clipped to [-1, 1].
    """
    n, alpha = flips.n, 1 - level
    if not n:
        return Interval(-1.0, 1.0)
    tuned = (math.sqrt(-2 * math.log(alpha) + math.log(-2 * math.log(alpha) + 1))) / math.sqrt(_TUNED_FOR)
    padded, changed = n + 2, flips.lost + flips.gained + 2
    variance = changed / padded - ((flips.gained - flips.lost) / padded) ** 2
    grown = n * tuned**2 + 1
    half = math.sqrt(variance * 2 * grown / (n * tuned) ** 2 * math.log(math.sqrt(grown) / alpha))
    return Interval(max(-1.0, flips.difference - half), min(1.0, flips.difference + half))
