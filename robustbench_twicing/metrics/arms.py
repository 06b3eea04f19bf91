"""One mechanism against another: arms of training seeds that answered the same images.

Two checkpoints differ by their method and by the luck of their seeds, and no number of images tells the two apart. An
arm is a method trained with several seeds; what is tested is the difference of the arms' mean accuracies, with seeds
and images both drawn at random. It is the multi-reader multi-case design with readers nested in treatments: seeds read,
images are the cases (Obuchowski and Rockette 1995, Communications in Statistics B 24:285-308; Hillis 2007, Statistics
in Medicine 26:596-619; Hillis 2014, Statistics in Medicine 33:330-360). See docs/statistics.md.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import nctdtrinc, ndtr, ndtri, stdtr, stdtrit

from robustbench_twicing.errors import UserError
from robustbench_twicing.metrics.intervals import Interval

Images = Literal["random", "fixed"]
"""`random`: the statement is about all images that these are a sample of; `fixed`: about these images only."""

FEWEST_SEEDS = 3
"""Of an arm. With two, the test rejects a true null hypothesis in 7 to 8 % of cases at a level of 5 % (simulated)."""


_NOTHING = 1e-24
"""A variance that is rounding: the square of 1e-12."""


class ArmsTest(NamedTuple):
    """The difference of two arms, candidate minus baseline, and how sure it is."""

    difference: float
    interval: Interval
    """Of the difference, at level 1 - alpha, for this comparison alone."""
    t: float
    df: float
    """Degrees of freedom of the t distribution; infinite where the seeds do not differ at all."""
    p: float
    """Two-sided, before any correction for a family."""
    seed_variance: float
    """Part of the difference's variance that comes from the training seeds."""
    image_variance: float
    """The part that comes from the choice of the images."""
    detectable: float
    """Smallest true difference that such seeds and images would show with the stated power."""

    @property
    def seed_share(self) -> float:
        """Share of the variance that more seeds, and not more images, would lessen. NaN where nothing varies."""
        whole = self.seed_variance + self.image_variance
        return self.seed_variance / whole if whole else float("nan")


def one_sided(test: ArmsTest, difference: float = 0.0) -> tuple[float, float]:
    """p of "the true difference is `difference` or more", small if it is below; and of "or less", small if above."""
    error, distance = math.sqrt(test.seed_variance + test.image_variance), test.difference - difference
    if not error:
        return float(distance >= 0), float(distance <= 0)
    return _tail(-distance / error, test.df), _tail(distance / error, test.df)


def two_sided(t: float, df: float, alpha: float) -> tuple[float, float]:
    """p of a t on so many degrees of freedom, which may be infinite; and what |t| must exceed at level alpha."""
    return min(1.0, 2 * _tail(abs(t), df)), _critical(df, alpha)


def margin_p(test: ArmsTest, margin: float, images: int) -> tuple[float, float]:
    """One-sided p of "the candidate is worse by `margin` or more", and of "better by it or more"; both small: neither.

    A `margin` in (0, 1). Never below what identical answers of one model to so many images would give, (1 - margin)^n:
    where nothing varies the t distribution says nothing.
    """
    least = (1 - margin) ** images
    return max(one_sided(test, -margin)[1], least), max(one_sided(test, margin)[0], least)


class _Parts(NamedTuple):
    """Variance components of one pair of arms."""

    seed: float
    image: float
    df_seed: float


def compare_arms(
    baseline: Float[np.ndarray, "seeds images"],
    candidate: Float[np.ndarray, "other_seeds other_images"],
    *,
    images: Images = "random",
    alpha: float = 0.05,
    power: float = 0.8,
) -> ArmsTest:
    """Test whether two arms differ in their mean, from one value for each seed (row) and image (column).

    A value is 0 or 1 for wrong and right, or any number that an image has, such as its share of a curve's area. Columns
    are the same images on both sides; seeds need not be as many. With D the difference of the means over all seeds and
    images, s² an arm's variance between the accuracies of its S seeds, and d the difference of the arms' means on an
    image:

        V_seed = s₁²/S₁ + s₂²/S₂        V_image = Var(d)/n - Σ MS(seed × image)/(S n), at least 0
        t = D/√(V_seed + V_image)       df = V² (S₁ + S₂ - 2)/V_seed²

    For unequal S the variances are not pooled: df = V² / Σ (s²/S)²/(S - 1). Where the seeds do not differ at all, t is
    normal. With `images="fixed"` V_image is left away. Raises `UserError` below three seeds in an arm, below two
    images, and for different numbers of images.
    """
    for name, arm in (("baseline", baseline), ("candidate", candidate)):
        if len(arm) < FEWEST_SEEDS:
            raise UserError(
                f"The {name} arm has {len(arm)} seed(s); a statement about a mechanism needs {FEWEST_SEEDS} or more.",
                "Train more seeds: two weight files cannot be told from two training seeds.",
            )
    if baseline.shape[1] != candidate.shape[1] or baseline.shape[1] < 2:
        raise UserError(
            f"The arms answered {baseline.shape[1]} and {candidate.shape[1]} images.",
            "Both must have answered the same images, at least 2.",
        )
    parts = _parts(baseline, candidate)
    image = parts.image if images == "random" else 0.0
    difference = float(candidate.mean() - baseline.mean())
    return _test(difference, parts._replace(image=image), alpha, power)


def _parts(baseline: np.ndarray, candidate: np.ndarray) -> _Parts:
    n = baseline.shape[1]
    of_seeds = [float(arm.mean(axis=1).var(ddof=1)) / len(arm) for arm in (baseline, candidate)]
    on_images = candidate.mean(axis=0) - baseline.mean(axis=0)
    # What seeds and images do together is in both variances and must count once.
    together = sum(_interaction(arm) / (len(arm) * n) for arm in (baseline, candidate))
    counts = [len(baseline), len(candidate)]
    seed = sum(of_seeds)
    if seed < _NOTHING:
        seed = 0.0
    if counts[0] == counts[1]:
        df_seed = float(sum(counts) - 2)
    else:
        uncertain = sum(part**2 / (count - 1) for part, count in zip(of_seeds, counts, strict=True))
        df_seed = seed**2 / uncertain if uncertain else math.inf
    image = max(float(on_images.var(ddof=1)) / n - together, 0.0)
    return _Parts(seed, image if image > _NOTHING else 0.0, df_seed)


def _interaction(arm: np.ndarray) -> float:
    """Mean square of seeds × images: what is left of an arm's values without the seeds' and the images' means."""
    rest = arm - arm.mean(axis=0) - arm.mean(axis=1, keepdims=True) + arm.mean()
    seeds, images = arm.shape
    mean_square: float = np.sum(rest**2).item() / ((seeds - 1) * (images - 1))
    return mean_square


def _df(parts: _Parts) -> float:
    """Satterthwaite's, where only the seeds' variance is uncertain (Hillis 2007, eq. 8)."""
    variance = parts.seed + parts.image
    ratio: float = (variance / parts.seed) ** 2 if parts.seed else math.inf
    return ratio * parts.df_seed


def _test(difference: float, parts: _Parts, alpha: float, power: float) -> ArmsTest:
    variance, df = parts.seed + parts.image, _df(parts)
    error = math.sqrt(variance)
    score = difference / error if error else math.copysign(math.inf, difference) if difference else 0.0
    reach = _critical(df, alpha) * error
    return ArmsTest(
        difference=difference,
        interval=Interval(difference - reach, difference + reach),
        t=score,
        df=df,
        p=min(1.0, 2 * _tail(abs(score), df)),
        seed_variance=parts.seed,
        image_variance=parts.image,
        detectable=detectable(parts.seed, parts.image, df, alpha, power),
    )


def detectable(
    seed_variance: float, image_variance: float, df: float, alpha: float = 0.05, power: float = 0.8
) -> float:
    """Smallest true difference that the two-sided test at `alpha` finds with probability `power`, by noncentral t."""
    error = math.sqrt(seed_variance + image_variance)
    if not error:
        return 0.0
    if not math.isfinite(df):
        return float(ndtri(1 - alpha / 2) + ndtri(power)) * error
    return float(nctdtrinc(df, 1 - power, _critical(df, alpha))) * error


def _critical(df: float, alpha: float) -> float:
    """What |t| must exceed."""
    return float(stdtrit(df, 1 - alpha / 2) if math.isfinite(df) else ndtri(1 - alpha / 2))


def _tail(score: float, df: float) -> float:
    """Probability of a larger t."""
    return float(stdtr(df, -score) if math.isfinite(df) else ndtr(-score))


def seeds_needed(
    difference: float,
    seed_spread: float,
    image_spread: float,
    images: Sequence[int],
    *,
    alpha: float = 0.05,
    power: float = 0.8,
    most: int = 200,
) -> dict[int, int | None]:
    """For each number of images, the seeds that either arm needs to show a true `difference`: {images: seeds}.

    `seed_spread` is s₁² + s₂², what V_seed would be with one seed an arm, and `image_spread` what V_image would be with
    one image: a pilot's estimates, taken for the true ones. None where `most` seeds are too few.
    """
    counts = range(FEWEST_SEEDS, most + 1)
    return {
        n: next(
            (s for s in counts if _shown(seed_spread / s, image_spread / n, s, alpha, power) <= abs(difference)), None
        )
        for n in images
    }


def _shown(seed_variance: float, image_variance: float, seeds: int, alpha: float, power: float) -> float:
    df = _df(_Parts(seed_variance, image_variance, 2.0 * seeds - 2))
    return detectable(seed_variance, image_variance, df, alpha, power)
