"""Seeded bootstrap over images, stratified by class (Efron 1979).

Accuracy, mean error, mCE and relative mCE with fixed denominators, and the area under a curve over eps are all affine
in the outcomes of an image. So each has a value for every single image, and the mean of these values is the value for
the data set. A difference of two models is the mean of the differences image by image, which makes it paired:

    mce(errors_by_cell(outcomes, cells), denominators)      one value for each row of `outcomes`
    curve_area(eps, outcomes.astype(float))                 likewise

One image appears under 75 corruptions of ImageNet-C and its outcomes go together. Resampling the values of images keeps
them together; resampling 3.75 million outcomes as if they were independent gives an interval that is far too narrow.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from robustbench_twicing.errors import UserError
from robustbench_twicing.metrics.intervals import Interval

_DRAWS_AT_ONCE = 2**22  # 64 MB of indices and values


class Estimate(NamedTuple):
    """A mean over the images, with its interval."""

    value: float
    interval: Interval


def bootstrap_mean(
    values: Float[np.ndarray, " samples"],
    *,
    strata: Int[np.ndarray, " samples"] | None = None,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Mean of one value per image, with a percentile interval (Efron and Tibshirani 1993, chapter 13).

    Images are drawn with replacement, within their class where `strata` gives the labels. A class of m images is
    resampled by m - 1 draws, which makes the variance of the mean unbiased however few images a class has (Rao and Wu
    1988, JASA 83:231-241); m draws would be too narrow by the factor sqrt((m - 1) / m). If a class has a single image
    nothing is stratified, which can only widen the interval.

    The draws depend on the order of `values`: keep samples in the order of their ids, as `paired.py` does. Raises
    `UserError` below two samples.
    """
    if len(values) < 2:
        raise UserError(
            f"A bootstrap needs at least 2 samples, not {len(values)}.", "Evaluate more samples: raise --limit."
        )
    generator = np.random.default_rng(seed)
    totals = np.zeros(resamples)
    for members in _by_class(values, strata):
        size = len(members)
        step = max(1, _DRAWS_AT_ONCE // size)
        for start in range(0, resamples, step):
            part = totals[start : start + step]
            drawn = generator.integers(size, size=(len(part), size - 1))
            part += size * members[drawn].mean(axis=1)
    low, high = np.quantile(totals / len(values), [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(values.mean()), Interval(float(low), float(high)))


def bootstrap_difference(
    compute: Callable[..., float],
    baseline: Mapping[str, Sequence[np.ndarray]],
    candidate: Mapping[str, Sequence[np.ndarray]],
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Candidate minus baseline of any figure, with a percentile interval (Efron and Tibshirani 1993, chapter 13).

    `compute` takes arrays with one value for each sample and gives a number. They are given by the set of samples that
    they are about, in order: outliers and clean images are two sets, a sample's confidence and correctness stand in
    one. Each set is resampled by itself, with replacement and as large as it is, and one draw serves both models, which
    makes the difference paired (for areas under ROC curves Obuchowski and Lieber 1998, Academic Radiology 5:561-571).
    Both sides give the same samples in the same order. Raises `UserError` if a set has less than two samples.
    """
    sizes = {name: len(arrays[0]) for name, arrays in baseline.items()}
    if min(sizes.values()) < 2:
        raise UserError(
            f"A bootstrap needs at least 2 samples, not {min(sizes.values())}.", "Evaluate more samples: raise --limit."
        )

    def difference(rows: Mapping[str, Any]) -> float:
        one, other = (
            compute(*(array[rows[name]] for name, arrays in side.items() for array in arrays))
            for side in (baseline, candidate)
        )
        return float(other - one)

    generator = np.random.default_rng(seed)
    drawn = ({name: generator.integers(size, size=size) for name, size in sizes.items()} for _ in range(resamples))
    differences = np.array([difference(rows) for rows in drawn])
    low, high = np.quantile(differences, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(difference(dict.fromkeys(sizes, slice(None))), Interval(float(low), float(high)))


def _by_class(values: np.ndarray, strata: np.ndarray | None) -> list[np.ndarray]:
    if strata is None:
        return [values]
    _, index, sizes = np.unique(strata, return_inverse=True, return_counts=True)
    if sizes.min() < 2:
        return [values]
    return np.split(values[np.argsort(index, kind="stable")], np.cumsum(sizes)[:-1])
