"""Better, worse, or no difference found: paired tests, what they could have shown, and the verdict of a family.

Two models answered the same samples. `lost` counts those that only the baseline has right, `gained` those that only
the candidate has right; samples on which both agree say nothing about the difference. See docs/statistics.md.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import bdtr, betaincinv, gammaln

from robustbench_twicing.errors import UserError
from robustbench_twicing.metrics.intervals import Interval, paired_difference_interval, paired_score
from robustbench_twicing.metrics.paired import Flips
from robustbench_twicing.metrics.sequential import always_valid_p, confidence_sequence

Verdict = Literal["better", "worse", "no difference found", "undecided", "same weights"]
"""Undecided: it hangs on samples that failed. Counted all for one side and all for the other, they turn it. Same
weights: the sides are one model under two seeds, and there is nothing to be better at."""

_NORMAL = NormalDist()


class Comparison(NamedTuple):
    """What two models' flips under one threat amount to, within a family of such comparisons."""

    verdict: Verdict
    """Of the candidate. "No difference found" is not "equal": see `detectable_difference` and `equivalence_p`."""
    flips: Flips
    difference: float
    """Accuracy of the candidate minus that of the baseline."""
    interval: Interval
    """Of `difference`, at level 1 - alpha, for this comparison alone: it is not widened for the family."""
    p: float
    """By the exact test, or the always-valid one."""
    p_mid: float
    p_holm: float | None
    """`p` after Holm's correction for the family, or max-T's; the verdict's p. None for one that stands alone, whose
    verdict rests on `p`."""
    detectable_difference: float | None
    """Smallest true difference that the test would have found with the stated power; None if n is too small for any."""


def compare(
    family: Sequence[Flips],
    alpha: float = 0.05,
    power: float = 0.8,
    *,
    sequential: bool = False,
    adjusted: Sequence[float] | None = None,
) -> list[Comparison]:
    """The verdict on each comparison of a family, in its order.

    Better or worse needs both p_holm <= alpha and an interval that excludes 0. If no candidate of the family truly
    differs, some verdict differs from "no difference found" with probability at most alpha: the exact test holds its
    level for every n, and Holm's correction holds it for the family under any dependence.

    The detectable difference uses the level that Holm leaves to a comparison not yet decided, alpha / (family size -
    comparisons rejected).

    `adjusted` are p that take the place of Holm's (and of p_holm), such as those of `metrics.max_t`.

    `sequential`: the promise holds over all looks together, with more samples each time (`metrics.sequential`), and so
    do the intervals.
    """
    of = always_valid_p if sequential else mcnemar_exact
    p_values = [of(flips.lost, flips.gained) for flips in family]
    of_family = holm(np.array(p_values, dtype=float)) if adjusted is None else np.array(adjusted, dtype=float)
    level = alpha / max(1, len(family) - int((of_family <= alpha).sum()))
    return [
        _judge(flips, p, float(p_family), alpha, level, power, sequential)
        for flips, p, p_family in zip(family, p_values, of_family, strict=True)
    ]


def compare_alone(flips: Flips, alpha: float = 0.05, power: float = 0.8, *, sequential: bool = False) -> Comparison:
    """The verdict on a comparison outside every family: by its own p, so wrong with probability at most alpha each.

    For rows that a family does not count (`results.family`); what they say is no part of the family's promise.
    """
    p = (always_valid_p if sequential else mcnemar_exact)(flips.lost, flips.gained)
    return _judge(flips, p, None, alpha, alpha, power, sequential)


def _judge(
    flips: Flips, p: float, p_holm: float | None, alpha: float, level: float, power: float, sequential: bool
) -> Comparison:
    if sequential:
        interval = confidence_sequence(flips, 1 - alpha)
    else:
        interval = paired_difference_interval(flips.lost, flips.gained, flips.n, 1 - alpha)
    significant = (p if p_holm is None else p_holm) <= alpha
    verdict: Verdict = "no difference found"
    if significant and interval.low > 0:
        verdict = "better"
    elif significant and interval.high < 0:
        verdict = "worse"
    return Comparison(
        verdict=verdict,
        flips=flips,
        difference=flips.difference,
        interval=interval,
        p=p,
        p_mid=mcnemar_mid_p(flips.lost, flips.gained),
        p_holm=p_holm,
        detectable_difference=detectable_difference(flips.n, flips.discordance, level, power) if flips.n else None,
    )


def mcnemar_exact(lost: int, gained: int) -> float:
    """Two-sided exact p of "a sample that changes sides is as often lost as gained" (McNemar 1947; exact: binomial).

    Twice the smaller binomial tail of `lost` + `gained` fair coins, at most 1. Never rejects too often, and somewhat
    too rarely when few samples change sides. 1 if none does.
    """
    return min(1.0, 2 * float(bdtr(min(lost, gained), lost + gained, 0.5)))


def mcnemar_mid_p(lost: int, gained: int) -> float:
    """Two-sided mid-p: as `mcnemar_exact`, with the observed outcome counted half in each tail.

    Close to its level on average, above it for some numbers of flips; Fagerland, Lydersen and Laake (2013, BMC Medical
    Research Methodology 13:91) recommend it. Verdicts use the exact p, which keeps its promise always.
    """
    fewer, flips = min(lost, gained), lost + gained
    as_seen = math.exp(gammaln(flips + 1) - gammaln(fewer + 1) - gammaln(flips - fewer + 1) - flips * math.log(2))
    return min(1.0, 2 * float(bdtr(fewer, flips, 0.5)) - as_seen)


def holm(p_values: Float[np.ndarray, " family"]) -> Float[np.ndarray, " family"]:
    """Adjusted p of a family (Holm 1979, Scandinavian Journal of Statistics 6:65-70), in the order given.

    Rejecting where the adjusted p is at most alpha makes any false rejection in the family as likely as alpha at most,
    under any dependence. Never weaker than Bonferroni.
    """
    order = np.argsort(p_values, kind="stable")
    stepped = np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1))
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def benjamini_hochberg(p_values: Float[np.ndarray, " family"]) -> Float[np.ndarray, " family"]:
    """Adjusted p of a family (Benjamini and Hochberg 1995, JRSS B 57:289-300), in the order given.

    Of what is rejected where the adjusted p is at most alpha, the expected share that is false is alpha at most, for
    tests that are independent or positively dependent. As `scipy.stats.false_discovery_control`, whose import takes as
    long as a report.
    """
    order = np.argsort(p_values, kind="stable")[::-1]
    stepped = np.minimum.accumulate(p_values[order] * len(p_values) / np.arange(len(p_values), 0, -1))
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


# --- what n samples can show -----------------------------------------------------------------------------------------
# Normal approximation of McNemar's power given the share of discordant samples (Miettinen 1968, Biometrics 24:339-352;
# Connor 1987, Biometrics 43:207-211) with Edwards' (1948) continuity correction: n d - 1 in place of n d. With it the
# exact test has at least the power named, a little more when few samples change sides (tests/metrics/test_verdict.py).


def detectable_difference(n: int, discordance: float, level: float = 0.05, power: float = 0.8) -> float | None:
    """Smallest true difference of accuracies that the exact test at `level` finds with probability `power`.

    `discordance` in [0, 1] is the share of samples that change sides. If that share is too small for any detectable
    difference, the answer supposes that samples change sides in one direction only. None if n is too small for that.
    """
    z_level, z_power = _NORMAL.inv_cdf(1 - level / 2), _NORMAL.inv_cdf(power)
    shift = z_level * math.sqrt(discordance) + 1 / math.sqrt(n)
    inside = discordance * (n + z_power**2) - shift**2
    if inside >= 0:
        difference = (shift * math.sqrt(n) + z_power * math.sqrt(inside)) / (n + z_power**2)
        if difference <= discordance:
            return difference
    # All flips one way: `fewest` are needed before the exact p reaches the level; n must bring them with the power.
    fewest = math.ceil(1 - math.log2(level))
    return float(betaincinv(fewest, n - fewest + 1, power)) if n >= fewest else None


def samples_needed(difference: float, discordance: float, level: float = 0.05, power: float = 0.8) -> int:
    """About how many samples the exact test at `level` needs to find a true `difference` with probability `power`.

    0 < `difference` <= `discordance` <= 1, the latter being the share of samples that change sides.
    """
    spread = _NORMAL.inv_cdf(1 - level / 2) * math.sqrt(discordance)
    spread += _NORMAL.inv_cdf(power) * math.sqrt(max(discordance - difference**2, 0.0))
    return math.ceil(((spread + math.sqrt(spread**2 + 4 * difference)) / (2 * difference)) ** 2)


# --- showing that there is no harm -----------------------------------------------------------------------------------


def not_worse_p(flips: Flips, margin: float) -> float:
    """One-sided p of "the candidate is worse by `margin` or more"; small: it is not (non-inferiority).

    `margin` is a fraction in (0, 1): half a point is 0.005. Tango's score test (`paired_score`), asymptotic. At 0.05
    the same as a 90 % `paired_difference_interval` that lies above -margin. NaN without samples. Raises `UserError`.
    """
    check_margin(margin)
    if not flips.n:
        return float("nan")
    return _NORMAL.cdf(-paired_score(flips.lost, flips.gained, flips.n, -margin))


def equivalence_p(flips: Flips, margin: float) -> float:
    """p of "the accuracies differ by `margin` or more", by two one-sided tests; small: they do not.

    The larger of the two one-sided p (TOST: Schuirmann 1987; for paired proportions Tango 1998). Otherwise as
    `not_worse_p`.
    """
    mirrored = flips._replace(lost=flips.gained, gained=flips.lost)
    return max(not_worse_p(flips, margin), not_worse_p(mirrored, margin))


def check_margin(margin: float | None) -> None:
    """Raise `UserError` for what is no margin; there may be none."""
    if margin is not None and not 0 < margin < 1:
        raise UserError(
            f"A margin of {margin} makes no sense for a difference of accuracies.",
            "Give a fraction of the samples between 0 and 1; half a percentage point is 0.005.",
        )
