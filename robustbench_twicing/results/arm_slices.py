"""Where two mechanisms differ: by true class, severity and margin, with seeds and images drawn at random. No torch.

A slice is as of two models (`results.slices`). An image counts once in each seed, by the share of the slice's threats
under which it is right, and the test is that of arms (`metrics.arms`), with t on fewer degrees of freedom: the
variance over a slice's few images is uncertain too. The slices of a comparison are one family for Benjamini and
Hochberg's correction.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from robustbench_twicing.metrics.arms import ArmsTest, Images, compare_arms, two_sided
from robustbench_twicing.metrics.intervals import Interval
from robustbench_twicing.metrics.paired import ArmPairs
from robustbench_twicing.metrics.verdict import benjamini_hochberg
from robustbench_twicing.results.arms import Arm
from robustbench_twicing.results.cells import answered
from robustbench_twicing.results.side import CLEAN
from robustbench_twicing.results.slices import MARGINS, By, grouped, quarters, severities
from robustbench_twicing.spec.threats import Threat

FEWEST_IMAGES = 20
"""In a slice that is asked about: with fewer, t says too little of a mean of zeros and ones."""


@dataclass(frozen=True)
class ArmSlice:
    """Images on which one mechanism may be better than elsewhere."""

    baseline: str
    candidate: str
    of: str
    """`clean`, an attack such as `pgd-linf`, or a suite."""
    by: By
    value: str
    images: int
    difference: float
    """Of the arms' mean accuracies on the slice, candidate minus baseline, as a fraction."""
    interval: Interval
    """Of the difference, for this slice alone."""
    p: float
    q: float = 1.0
    """`p` after Benjamini and Hochberg's correction: the slice is found if it is at most alpha."""

    @property
    def verdict(self) -> Literal["better", "worse"]:
        """Of the candidate as trained, if the slice is found."""
        return "better" if self.difference > 0 else "worse"

    @property
    def weight(self) -> float:
        """How many images' worth of answers it is about."""
        return abs(self.difference) * self.images


class ArmSlices(NamedTuple):
    """What was looked at."""

    found: tuple[ArmSlice, ...]
    """The smallest p first."""
    asked: int


class ArmOutcomes(NamedTuple):
    """Two arms under the threats of their family, and the images' margins."""

    baseline: str
    candidate: str
    pairs: Mapping[str, ArmPairs]
    threats: Mapping[str, Threat]
    margins: "pd.Series[float] | None"
    """Mean of all models' margins on the clean image, by sample id; None without a clean run."""


class _Answers(NamedTuple):
    """Of some threats, by image: its id, its class, and for each seed the share of the threats with a right answer."""

    ids: np.ndarray
    labels: np.ndarray
    baseline: np.ndarray
    candidate: np.ndarray

    def of(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.baseline[:, chosen], self.candidate[:, chosen]


def arm_margins(*arms: Arm) -> "pd.Series[float] | None":
    """The mean of all models' margins on clean images that all answered."""
    if not all(arm.covers(CLEAN) for arm in arms):
        return None
    cells = [answered(cell) for arm in arms for cell in arm.cells[CLEAN].values()]
    if any("margin" not in cell for cell in cells):
        return None
    each = [pd.Series(cell["margin"].to_numpy(), cell["sample_id"].to_numpy()) for cell in cells]
    mean = (sum(each[1:], start=each[0]) / len(each)).dropna()
    return mean if len(mean) else None


def find_arm_slices(compared: Sequence[ArmOutcomes], images: Images = "random", alpha: float = 0.05) -> ArmSlices:
    """The slices in which the arms differ; of those found a share of alpha at most is expected to be chance.

    Asked about are slices of `FEWEST_IMAGES` or more in which some answer differs between the arms, whichever gains.
    """
    asked = [one for each in compared for one in _slices(each, images, alpha)]
    adjusted = benjamini_hochberg(np.array([one.p for one in asked]))
    judged = [replace(one, q=float(q)) for one, q in zip(asked, adjusted, strict=True)]
    return ArmSlices(tuple(sorted((one for one in judged if one.q <= alpha), key=lambda one: one.p)), len(asked))


def _slices(each: ArmOutcomes, images: Images, alpha: float) -> Iterator[ArmSlice]:
    for of, names in grouped(each.pairs, each.threats).items():
        for by, value, answers, chosen in _parts(each, names):
            sides = answers.of(chosen)
            count = int(chosen.sum())
            if count < FEWEST_IMAGES or np.array_equal(sides[0].mean(axis=0), sides[1].mean(axis=0)):
                continue
            test = compare_arms(*sides, images=images, alpha=alpha)
            p, ends = _judged(test, count, images, alpha)
            yield ArmSlice(each.baseline, each.candidate, of, by, value, count, test.difference, ends, p)


def _parts(each: ArmOutcomes, names: Sequence[str]) -> Iterator[tuple[By, str, _Answers, np.ndarray]]:
    """Every slice of some threats: by what, its value, the answers, and which of them it takes."""
    answers = _answers([each.pairs[name] for name in names])
    for value in np.unique(answers.labels):
        yield "class", str(value), answers, answers.labels == value
    if each.margins is not None:
        quarter = quarters(each.margins.reindex(answers.ids).to_numpy())
        for number, name in enumerate(MARGINS):
            yield "margin", name, answers, quarter == number
    for severity, some in severities(each.threats, names).items():
        alone = _answers([each.pairs[name] for name in some])
        yield "severity", str(severity), alone, np.ones(len(alone.ids), dtype=bool)


def _answers(pairs: Sequence[ArmPairs]) -> _Answers:
    """Over the images that all models answered under all of these threats."""
    ids = pairs[0].sample_ids
    for one in pairs[1:]:
        if not np.array_equal(one.sample_ids, ids):
            ids = np.intersect1d(ids, one.sample_ids)
    places = [np.searchsorted(one.sample_ids, ids) for one in pairs]  # matched ids are sorted
    sides = [
        sum(one[:, place].astype(float) for one, place in zip(arm, places, strict=True)) / len(pairs)
        for arm in ([one.baseline for one in pairs], [one.candidate for one in pairs])
    ]
    return _Answers(ids, pairs[0].labels[places[0]], np.asarray(sides[0]), np.asarray(sides[1]))


def _judged(test: ArmsTest, count: int, images: Images, alpha: float) -> tuple[float, Interval]:
    """p and interval of a test on so many images.

    Where nothing varies t says nothing: p is then at least that of as many tosses of a coin that all fall alike.
    """
    whole, image = test.seed_variance + test.image_variance, test.image_variance
    least = 2 * 0.5**count if images == "random" else 0.0
    if not whole:
        return max(test.p, least), test.interval
    of_seeds = whole**2 / test.df if math.isfinite(test.df) else 0.0  # seed² / its degrees of freedom
    uncertain = of_seeds + (image**2 / (count - 1) if images == "random" else 0.0)
    df = whole**2 / uncertain if uncertain else math.inf
    p, reach = two_sided(test.t, df, alpha)
    error = reach * math.sqrt(whole)
    return max(p, least), Interval(test.difference - error, test.difference + error)
