"""Accuracy and what else a threat's samples come to, and what a curve of accuracy over eps comes to."""

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from robustbench_twicing.metrics.intervals import (
    Interval,
    paired_difference_interval,
    unpaired_difference_interval,
    wilson_interval,
)

Hits = Bool[np.ndarray, " samples"]
Values = Float[np.ndarray, " samples"] | Int[np.ndarray, " samples"]


def accuracy(hits: Hits) -> float:
    """Fraction of samples that count as right: top-1 from the column `correct`, top-5 from `top5_correct`.

    NaN without samples.
    """
    return float(hits.mean()) if hits.size else float("nan")


def accuracy_low(hits: Hits) -> float:
    """Lower end of the 95 % Wilson interval of `accuracy`, see `intervals.wilson_interval`; 0 without samples."""
    return wilson_interval(int(hits.sum()), hits.size).low


def accuracy_high(hits: Hits) -> float:
    """Upper end of that interval; 1 without samples."""
    return wilson_interval(int(hits.sum()), hits.size).high


def change(hits: Hits, before: Bool[np.ndarray, " others"]) -> float:
    """Accuracy minus the accuracy `before`, negative for what was lost. NaN if either side has no samples."""
    return accuracy(hits) - accuracy(before)


def change_low(hits: Hits, before: Bool[np.ndarray, " others"], same_samples: bool) -> float:
    """Lower end of the 95 % interval of `change`: Tango's for the same samples in one order on both sides, else
    Newcombe's. NaN if either side has no samples."""
    return _change_interval(hits, before, same_samples).low


def change_high(hits: Hits, before: Bool[np.ndarray, " others"], same_samples: bool) -> float:
    """Upper end of that interval."""
    return _change_interval(hits, before, same_samples).high


def _change_interval(hits: np.ndarray, before: np.ndarray, same_samples: bool) -> Interval:
    if not hits.size or not before.size:
        return Interval(float("nan"), float("nan"))
    if same_samples:
        lost, gained = int((before & ~hits).sum()), int((hits & ~before).sum())
        return paired_difference_interval(lost, gained, hits.size)
    return unpaired_difference_interval(int(hits.sum()), hits.size, int(before.sum()), before.size)


def mean(values: Values) -> float:
    """NaN without samples."""
    return float(values.mean()) if values.size else float("nan")


def largest(values: Values) -> float:
    """The largest value. NaN without samples, or where one is NaN."""
    return float(values.max()) if values.size else float("nan")


def unconfirmed(
    correct: Hits,
    rejected: Hits,
    forwards: Int[np.ndarray, " samples"],
    precision: Shaped[np.ndarray, " samples"],
) -> float:
    """Of the samples that an attack took for broken, the fraction that float32 judged otherwise (`rejected`).

    NaN if it took none for broken, and for attacks in float32 unless they were compiled and had such samples.
    """
    if not correct.size or (precision[0] == "float32" and not rejected.any()):
        return float("nan")
    # A sample that was not attacked, being wrong already, took one evaluation.
    confirmed = ~correct & ~rejected & (forwards > 1)
    successes = int(rejected.sum()) + int(confirmed.sum())
    return int(rejected.sum()) / successes if successes else float("nan")


def curve_area(
    eps: Float[np.ndarray, " points"], accuracies: Float[np.ndarray, "*curves points"]
) -> Float[np.ndarray, "*curves"]:
    """Mean accuracy over the range of `eps`: the area under the curve by trapezoids, divided by the range. In [0, 1].

    `eps` strictly increasing, at least two points (clean is eps 0). Any number of curves along the leading axes. The
    value depends on which eps were measured: compare areas over the same `eps` only. Raises `ValueError`.
    """
    _check_curve(eps)
    strips = np.diff(eps) * (accuracies[..., 1:] + accuracies[..., :-1]) / 2
    return np.asarray(strips.sum(axis=-1) / (eps[-1] - eps[0]))


def half_accuracy_eps(eps: Float[np.ndarray, " points"], accuracies: Float[np.ndarray, " points"]) -> float | None:
    """The eps at which accuracy first falls to half of its value at eps 0, by linear interpolation.

    `eps` strictly increasing from 0. None if no measured point is that low, or if nothing was right at eps 0: there is
    no extrapolation. Raises `ValueError`.
    """
    _check_curve(eps)
    if eps[0] != 0:
        raise ValueError("the curve has to start at eps 0, the clean accuracy")
    half = accuracies[0] / 2
    below = np.flatnonzero(accuracies <= half)
    if accuracies[0] == 0 or not below.size:
        return None
    after = below[0]
    before = after - 1
    share = (accuracies[before] - half) / (accuracies[before] - accuracies[after])
    return float(eps[before] + share * (eps[after] - eps[before]))


def _check_curve(eps: np.ndarray) -> None:
    if len(eps) < 2 or not (np.diff(eps) > 0).all():
        raise ValueError(f"a curve needs at least two strictly increasing eps, not {eps.tolist()}")
