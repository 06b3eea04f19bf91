"""Independent truths for the statistics: definitions written out as plain loops, enumerations and numerical searches.

Nothing here is shared with the package, and speed does not matter.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq, minimize_scalar
from scipy.stats import beta, binom, norm


def tango_score_by_likelihood(lost: int, gained: int, n: int, difference: float) -> float:
    """Score statistic with the nuisance probability found by maximising the multinomial likelihood numerically."""

    def negative_log_likelihood(q: float) -> float:
        terms = [(lost, q), (gained, q + difference), (n - lost - gained, 1 - 2 * q - difference)]
        return -sum(count * math.log(max(p, 1e-300)) for count, p in terms if count)

    low, high = max(0.0, -difference), (1 - difference) / 2
    q = minimize_scalar(negative_log_likelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-13}).x
    q = min((low, high, q), key=negative_log_likelihood)
    variance = (2 * q + difference - difference**2) / n
    return ((gained - lost) / n - difference) / math.sqrt(variance)


def tango_interval_by_search(lost: int, gained: int, n: int, level: float) -> tuple[float, float]:
    z = norm.ppf((1 + level) / 2)
    observed, tiny = (gained - lost) / n, 1e-9

    def end(sign: int, a: float, b: float) -> float:
        return float(brentq(lambda d: tango_score_by_likelihood(lost, gained, n, d) - sign * z, a, b, xtol=1e-10))

    return end(1, -1 + tiny, observed - tiny), end(-1, observed + tiny, 1 - tiny)


def mcnemar_by_enumeration(lost: int, gained: int) -> tuple[float, float]:
    """(exact p, mid-p): probability of the outcomes at least as uneven; for mid-p those as uneven count half."""
    flips = lost + gained
    as_uneven = strictly = 0
    for heads in range(flips + 1):
        unevenness = abs(2 * heads - flips)
        as_uneven += math.comb(flips, heads) * (unevenness >= abs(lost - gained))
        strictly += math.comb(flips, heads) * (unevenness > abs(lost - gained))
    return as_uneven / 2**flips, (as_uneven + strictly) / 2 / 2**flips


def exact_power(n: int, discordance: float, difference: float, level: float) -> float:
    """Probability that the exact McNemar test at `level` rejects, summed over every number of flips and their split."""
    p_gained = (discordance + difference) / (2 * discordance)
    spread = 9 * math.sqrt(n * discordance) + 9
    power = 0.0
    for flips in range(max(0, int(n * discordance - spread)), min(n, int(n * discordance + spread)) + 1):
        gained = np.arange(flips + 1)
        p_values = 2 * np.cumsum(binom.pmf(gained, flips, 0.5))[np.minimum(gained, flips - gained)]
        rejects = binom.pmf(gained, flips, p_gained)[p_values <= level].sum()
        power += binom.pmf(flips, n, discordance) * rejects
    return float(power)


def holm_by_closed_testing(p_values: Sequence[float]) -> list[float]:
    """A hypothesis is rejected if every intersection that contains it is, each tested by Bonferroni."""
    members = range(len(p_values))
    subsets = [s for k in range(1, len(p_values) + 1) for s in itertools.combinations(members, k)]
    return [max(min(1.0, len(s) * min(p_values[j] for j in s)) for s in subsets if i in s) for i in members]


def mce_by_loops(errors: dict, denominators: dict, corruptions: Sequence[str]) -> float:
    total = 0.0
    for corruption in corruptions:
        ours = theirs = 0.0
        for severity in range(1, 6):
            ours += errors[corruption, severity]
            theirs += denominators[corruption, severity]
        total += ours / theirs
    return 100 * total / len(corruptions)


def relative_mce_by_loops(
    errors: dict, clean: float, denominators: dict, clean_denominator: float, corruptions: Sequence[str]
) -> float:
    total = 0.0
    for corruption in corruptions:
        ours = theirs = 0.0
        for severity in range(1, 6):
            ours += errors[corruption, severity] - clean
            theirs += denominators[corruption, severity] - clean_denominator
        total += ours / theirs
    return 100 * total / len(corruptions)


def ece_by_loops(confidence: np.ndarray, correct: np.ndarray, bins: int) -> float:
    total = 0.0
    for index in range(bins):
        low, high = index / bins, (index + 1) / bins
        inside = [i for i, c in enumerate(confidence) if low < c <= high or (index == 0 and c == 0)]
        if inside:
            gap = np.mean([correct[i] for i in inside]) - np.mean([confidence[i] for i in inside])
            total += len(inside) / len(confidence) * abs(gap)
    return total


def rms_by_loops(confidence: np.ndarray, correct: np.ndarray, bin_size: int, bins_left_out: int) -> float:
    """For distinct confidences. `bins_left_out` counts from the most confident bin."""
    ranked = sorted(zip(confidence, correct, strict=True))
    bins: list[list] = []
    for position, pair in enumerate(ranked):
        if position % bin_size == 0 and len(ranked) - position >= bin_size:
            bins.append([])
        bins[-1].append(pair)
    total = 0.0
    for members in bins[: len(bins) - bins_left_out]:
        gap = sum(c for c, _ in members) / len(members) - sum(hit for _, hit in members) / len(members)
        total += len(members) * gap**2
    return math.sqrt(total / len(ranked))


def aurra_by_loops(confidence: np.ndarray, correct: np.ndarray) -> float:
    """For distinct confidences."""
    ranked = [hit for _, hit in sorted(zip(confidence, correct, strict=True), reverse=True)]
    return sum(sum(ranked[:k]) / k for k in range(1, len(ranked) + 1)) / len(ranked)


def fpr_by_loops(positives: np.ndarray, negatives: np.ndarray, recall: float) -> float:
    """Thresholds from the strictest down, until all positives are found; of equally near recalls the last."""
    best, distance = 0.0, math.inf
    for threshold in sorted({*positives, *negatives}, reverse=True):
        found = sum(score >= threshold for score in positives) / len(positives)
        if abs(found - recall) <= distance:
            best, distance = sum(score >= threshold for score in negatives) / len(negatives), abs(found - recall)
        if found == 1:
            break
    return best


def crossed_test(baseline: np.ndarray, candidate: np.ndarray) -> tuple[float, float, float]:
    """(D, its variance, df) of two arms of equally many seeds, by the covariances of Obuchowski and Rockette's model
    with readers nested in treatments (Hillis 2014): every pair of seeds by itself, no mean squares of an ANOVA table.

    MS(reader in treatment) + S max(cov2 - cov3, 0) is the variance of an arm's mean, times S; cov2 is the covariance of
    the accuracies of two seeds of one arm over images, cov3 that of seeds of two arms.
    """
    seeds, n = baseline.shape
    both = np.cov(np.vstack((baseline, candidate)), ddof=1) / n
    inside = [both[:seeds, :seeds], both[seeds:, seeds:]]
    cov2 = np.mean([block[i, j] for block in inside for i in range(seeds) for j in range(seeds) if i != j])
    cov3 = both[:seeds, seeds:].mean()
    accuracies = [arm.mean(axis=1) for arm in (baseline, candidate)]
    mean_square = np.mean([a.var(ddof=1) for a in accuracies])
    variance = 2 / seeds * (mean_square + seeds * max(cov2 - cov3, 0.0))
    df = (mean_square + seeds * max(cov2 - cov3, 0.0)) ** 2 / (mean_square**2 / (2 * (seeds - 1)))
    return float(accuracies[1].mean() - accuracies[0].mean()), float(variance), float(df)


def delong_difference(
    baseline: tuple[np.ndarray, np.ndarray], candidate: tuple[np.ndarray, np.ndarray], level: float
) -> tuple[float, float, float]:
    """Difference of two areas under ROC curves of the same samples and its interval by DeLong, DeLong and
    Clarke-Pearson (1988, Biometrics 44:837-845), with both structural components as means over all pairs."""
    components = []
    for positives, negatives in (baseline, candidate):
        above = (positives[:, None] > negatives) + 0.5 * (positives[:, None] == negatives)
        components.append((above.mean(axis=1), above.mean(axis=0)))
    parts = [components[1][side] - components[0][side] for side in (0, 1)]
    difference = parts[0].mean()
    error = math.sqrt(sum(part.var(ddof=1) / len(part) for part in parts))
    half = norm.ppf((1 + level) / 2) * error
    return difference, difference - half, difference + half


def exact_drop_p(lost: int, gained: int, n: int, drop: float, gamma: float) -> tuple[float, float]:
    """p of "the drop is `drop` or more" and of "or less", by every table and a grid over the share of flips.

    Tables are ordered by the signed root of the likelihood ratio; the share lies in its Clopper-Pearson interval.
    """

    def likelihood(a: int, b: int, p: np.ndarray, q: np.ndarray) -> np.ndarray:
        return p**a * q**b * np.maximum(1 - p - q, 0) ** (n - a - b)

    on_the_edge = np.linspace(drop, 1, 20_001)

    def score(a: int, b: int) -> float:
        best = likelihood(a, b, (on_the_edge + drop) / 2, (on_the_edge - drop) / 2).max()
        ratio = likelihood(a, b, np.array(a / n), np.array(b / n)) / best
        return math.copysign(math.sqrt(max(2 * math.log(ratio), 0)), drop - (a - b) / n)

    tables = [(a, b) for a in range(n + 1) for b in range(n + 1 - a)]
    scores, seen, sides = [score(a, b) for a, b in tables], score(lost, gained), lost + gained
    low = beta.ppf(gamma / 2, sides, n - sides + 1) if sides else 0.0
    high = beta.ppf(1 - gamma / 2, sides + 1, n - sides) if sides < n else 1.0
    shares = np.linspace(low, high, 4_001)
    drops = np.minimum(drop, shares)  # a share below the drop belongs to the second hypothesis alone
    chances = [
        math.comb(n, a) * math.comb(n - a, b) * likelihood(a, b, (shares + drops) / 2, (shares - drops) / 2)
        for a, b in tables
    ]
    above = sum(chance for chance, value in zip(chances, scores, strict=True) if value >= seen - 1e-3)
    below = sum(chance for chance, value in zip(chances, scores, strict=True) if value <= seen + 1e-3)
    return float(np.max(above * (shares >= drop), initial=0.0)) + gamma, float(np.max(below)) + gamma
