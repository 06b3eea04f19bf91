"""Jackknife over groups of images, for figures that are no mean over the images.

The images are dealt into groups at random, and the figure is computed once without each group (Shao and Wu 1989,
Annals of Statistics 17:1176-1197; Kott 2001, Journal of Official Statistics 17:521-526). An image leaves with all its
answers: it appears under 75 corruptions of ImageNet-C, and 3.75 million outcomes are not as many pieces of evidence.
Forty values are enough where a bootstrap takes hundreds, which of so many answers would be minutes.

What is a mean over the images (accuracy, mean error, mCE with fixed denominators, the area under a curve over eps) has
a value for every single image, and `intervals.mean_interval`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import ndtri, stdtrit

from robustbench_twicing.errors import UserError
from robustbench_twicing.metrics.calibration import Confidence, Hits
from robustbench_twicing.metrics.intervals import Estimate, Interval
from robustbench_twicing.metrics.left_out import AT_ONCE, IF_CALIBRATED, OF_HITS

Images = Int[np.ndarray, " samples"]
"""Which image each sample is of, as a number from 0."""


class Answers(NamedTuple):
    """Arrays with one value for each sample of a set, in the order of a figure's needs."""

    arrays: Sequence[np.ndarray]
    images: Images | None = None
    """None: every sample is of an image of its own."""


_GROUPS = (4, 40)
"""Fewest and most. Between them twice the root of the images: a figure that jumps, such as FPR95, needs large groups
(Shao and Wu 1989)."""
_NULL_DRAWS = 40
_ROUNDING = 1e-12


def jackknife(
    compute: Callable[..., float], sets: Mapping[str, Answers], *, most: float = 1.0, level: float = 0.95, seed: int = 0
) -> Estimate | None:
    """Any figure in [0, `most`] of one model, with a Student interval; None where leaving images out changes nothing.

    Each set of samples, such as outliers and clean images, is dealt into groups by itself. Raises `UserError` if a set
    has less than two images.
    """
    return _estimate(compute, [sets], (0.0, most), level, seed)


def jackknife_difference(
    compute: Callable[..., float],
    baseline: Mapping[str, Answers],
    candidate: Mapping[str, Answers],
    *,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate | None:
    """Candidate minus baseline of any figure in [0, 1], as `jackknife`.

    Both sides give the same samples in the same order; a group leaves both at once, which makes the difference paired.
    """
    return _estimate(compute, [baseline, candidate], (-1.0, 1.0), level, seed)


def calibration_estimate(
    compute: Callable[[Confidence, Hits], float],
    confidence: Confidence,
    correct: Hits,
    images: Images | None = None,
    *,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate | None:
    """A calibration error, which is biased upward and cannot be negative, with an interval that knows it.

    It begins at 0 unless the error is larger than (1 + level)/2 of the errors of a calibrated model with these
    confidences, whose answers to one image go together as much as they can. Else it begins below the jackknife's by the
    mean of those errors, which is the bias at most. Otherwise as `jackknife`.
    """
    found = jackknife(compute, {"samples": Answers([confidence, correct], images)}, level=level, seed=seed)
    if found is None:
        return None
    if images is None and compute in IF_CALIBRATED:
        mean, spread = IF_CALIBRATED[compute](confidence)
    else:
        null = np.array(_if_calibrated(compute, confidence, images, seed))
        mean, spread = float(null.mean()), float(null.std(ddof=1))
    (low, high), value = found.interval, found.value
    calibrated = value <= mean + float(ndtri((1 + level) / 2)) * spread
    return Estimate(value, Interval(0.0 if calibrated else max(0.0, low - mean), high))


def _if_calibrated(
    compute: Callable[[Confidence, Hits], float], confidence: Confidence, images: Images | None, seed: int
) -> list[float]:
    """Errors of a calibrated model with these confidences, one answer to each image."""
    generator = np.random.default_rng((seed, 1))
    order = np.argsort(confidence, kind="stable")
    confidence, codes = confidence[order], order if images is None else images[order]
    count = int(codes.max()) + 1
    error = OF_HITS[compute](confidence) if compute in OF_HITS else partial(compute, confidence)
    return [error(generator.random(count)[codes] < confidence) for _ in range(_NULL_DRAWS)]


def _estimate(
    compute: Callable[..., float],
    sides: Sequence[Mapping[str, Answers]],
    reach: tuple[float, float],
    level: float,
    seed: int,
) -> Estimate | None:
    """The figure of one side, or of the second minus the first."""
    generator = np.random.default_rng(seed)
    groups: dict[str, Int[np.ndarray, " samples"]] = {}
    fewest = min(image_count(answers) for answers in sides[0].values())
    if fewest < 2:
        raise UserError(f"An interval needs at least 2 images, not {fewest}.", "Evaluate more samples: raise --limit.")
    count = min(fewest, max(_GROUPS[0], 2 * math.isqrt(fewest)), _GROUPS[1])
    for name, answers in sides[0].items():
        dealt = generator.permutation(image_count(answers)) % count
        groups[name] = dealt if answers.images is None else dealt[answers.images]

    def figure(without: int | None = None) -> float:
        values = [
            compute(
                *(
                    array if without is None else array[groups[name] != without]
                    for name, answers in side.items()
                    for array in answers.arrays
                )
            )
            for side in sides
        ]
        return float(values[-1] - values[0]) if len(values) > 1 else float(values[0])

    left = _at_once(compute, sides, groups, count)
    if left is None:
        left = np.array([figure(group) for group in range(count)])
    error = math.sqrt((count - 1) ** 2 / count * left.var(ddof=1))
    value = figure()
    if not error > _ROUNDING * abs(value):
        return None
    half = float(stdtrit(count - 1, (1 + level) / 2)) * error
    return Estimate(value, Interval(max(reach[0], value - half), min(reach[1], value + half)))


def _at_once(
    compute: Callable[..., float], sides: Sequence[Mapping[str, Answers]], groups: Mapping[str, Images], count: int
) -> Float[np.ndarray, " groups"] | None:
    """The figure without each group, of one set of samples; None where it has to be computed group by group."""
    if compute not in AT_ONCE or len(groups) > 1:
        return None
    found = [AT_ONCE[compute](*answers.arrays, groups[name], count) for side in sides for name, answers in side.items()]
    return found[-1] - found[0] if len(found) > 1 else found[0]


def image_count(answers: Answers) -> int:
    """Of how many images the samples are."""
    if answers.images is None:
        return len(answers.arrays[0])
    return int(answers.images.max()) + 1 if answers.images.size else 0
