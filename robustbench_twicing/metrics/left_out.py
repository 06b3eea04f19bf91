"""Figures without each group of samples in turn, all at once: the jackknife's values where they are known so quickly.

`groups` says of each sample in which of `count` groups it is. What a function returns is, for each group, the figure of
the samples outside of it, as `compute` would find it.
"""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float, Int

from robustbench_twicing.metrics.accuracy import mean
from robustbench_twicing.metrics.calibration import (
    Confidence,
    Hits,
    aurc,
    aurra,
    calibrated_gaps,
    equal_bins,
    expected_calibration_error,
    rms_calibration_error,
)

Groups = Int[np.ndarray, " samples"]
Left = Float[np.ndarray, " groups"]


def _means(values: np.ndarray, groups: Groups, count: int) -> Left:
    sums = np.bincount(groups, weights=values, minlength=count)
    rest: Left = (sums.sum() - sums) / (len(values) - np.bincount(groups, minlength=count))
    return rest


def _ece(confidence: Confidence, correct: Hits, groups: Groups, count: int, bins: int = 15) -> Left:
    place = groups * bins + equal_bins(confidence, bins)
    gaps = np.bincount(place, weights=correct - confidence, minlength=count * bins).reshape(count, bins)
    rest: Left = np.abs(gaps.sum(axis=0) - gaps).sum(axis=1) / (len(correct) - np.bincount(groups, minlength=count))
    return rest


def _aurra(confidence: Confidence, correct: Hits, groups: Groups, count: int) -> Left:
    order = np.argsort(confidence, kind="stable")[::-1]
    if (np.diff(confidence[order]) == 0).any():
        return np.array([aurra(confidence[groups != group], correct[groups != group]) for group in range(count)])
    right, of = correct[order], groups[order]
    numbers = np.arange(1, len(right) + 1)
    found = np.empty(count)
    for group in range(count):
        kept = right[of != group]
        found[group] = (np.cumsum(kept) / numbers[: len(kept)]).mean()
    return found


AT_ONCE: Mapping[Callable[..., float], Callable[..., Left]] = {
    mean: _means,
    expected_calibration_error: _ece,
    aurra: _aurra,
    aurc: lambda *arguments: 1 - _aurra(*arguments),
}
"""By the function that finds the figure of all samples."""


def _ece_of_hits(confidence: Confidence, bins: int = 15) -> Callable[[Hits], float]:
    cuts = np.searchsorted(confidence, np.arange(1, bins) / bins, side="right")
    expected = np.array([part.sum() for part in np.split(confidence, cuts)])

    def error(correct: Hits) -> float:
        right = np.array([np.count_nonzero(part) for part in np.split(correct, cuts)])
        return float(np.abs(right - expected).sum() / len(correct))

    return error


def _rms_of_hits(confidence: Confidence, bin_size: int = 100) -> Callable[[Hits], float]:
    if (confidence[1:] == confidence[:-1]).any():  # samples of equal confidence share their mean correctness
        return lambda correct: rms_calibration_error(confidence, correct, bin_size)
    bins = max(1, len(confidence) // bin_size)
    starts = np.arange(bins) * bin_size
    sizes = np.diff(np.append(starts, len(confidence)))
    expected = np.add.reduceat(confidence, starts)

    def error(correct: Hits) -> float:
        whole = correct[: bins * bin_size].reshape(bins, -1)
        right = np.count_nonzero(whole, axis=1)
        right[-1] += np.count_nonzero(correct[bins * bin_size :])
        return float(np.sqrt(((right - expected) ** 2 / sizes).sum() / len(correct)))

    return error


OF_HITS: Mapping[Callable[..., float], Callable[[Confidence], Callable[[Hits], float]]] = {
    expected_calibration_error: _ece_of_hits,
    rms_calibration_error: _rms_of_hits,
}
"""For the same confidences, the lowest first, with many different answers: what finds the figure of each."""

IF_CALIBRATED: Mapping[Callable[..., float], Callable[[Confidence], tuple[float, float]]] = {
    expected_calibration_error: calibrated_gaps,
}
"""Mean and standard deviation of a calibration error of samples with answers of their own, if they are calibrated."""
