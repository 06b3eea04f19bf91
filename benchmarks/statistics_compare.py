"""How often are the verdicts and intervals of `compare` and of reports wrong?

    python benchmarks/statistics_compare.py     # prints the tables, writes benchmarks/statistics_compare.csv

Simulated models, images and seeds; every table is seeded. docs/statistics.md cites the numbers.
"""

from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit
from scipy.stats import binom, norm

from robustbench_twicing.metrics.arms import compare_arms
from robustbench_twicing.metrics.calibration import (
    aupr,
    auroc,
    aurra,
    calibrated_ece,
    debiased_ece,
    expected_calibration_error,
    fpr_at_recall,
    rms_calibration_error,
)
from robustbench_twicing.metrics.intervals import Estimate, mean_interval
from robustbench_twicing.metrics.jackknife import Answers, calibration_estimate, jackknife
from robustbench_twicing.metrics.max_t import max_t
from robustbench_twicing.metrics.sequential import always_valid_p
from robustbench_twicing.metrics.verdict import holm, mcnemar_exact

OUT = Path(__file__).with_suffix(".csv")
ALPHA = 0.05


def areas() -> Iterator[dict[str, Any]]:
    """Differences of areas under a curve of three sizes, an image's margins larger by `shift` of their spread."""
    steps, weights, repetitions = np.array([0, 0.5, 1.5]), np.array([0.125, 0.5, 0.375]), 2_000
    for n, accuracy, shift in product((10, 20, 50, 100, 597), (0.5, 0.9, 0.99, 0.999), (-0.3, 0.0, 0.3)):
        draw, margin = np.random.default_rng(7), np.sqrt(2) * norm.ppf(accuracy)
        edges = (margin + np.array([[shift], [0.0]]) - steps) / np.sqrt(2)
        truth = float((norm.cdf(edges) @ weights) @ [1, -1])
        covered = plain = 0
        for _ in range(repetitions):
            ease = margin + draw.normal(size=n)
            one, other = (((ease + by + draw.normal(size=n))[:, None] > steps) @ weights for by in (0, shift))
            low, high = mean_interval(other - one, (-1.0, 1.0))
            covered += low <= truth <= high
            plain += abs((other - one).mean() - truth) <= stdtrit(n - 1, 0.975) * (other - one).std(ddof=1) / np.sqrt(n)
        yield {"n": n, "accuracy": accuracy, "shift": shift} | {
            "covers": covered / repetitions,
            "without pseudo-images": plain / repetitions,
        }


def answers(draw: np.random.Generator, n: int, over: float, each: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Confidence, correctness and image of `each` answers to n images: too confident by `over`; 0 is calibrated."""
    seen = draw.normal(1.5, 1.2, (n, 1)) + 0.9 * draw.normal(size=(n, each))
    confidence = np.clip(0.9 / (1 + np.exp(-np.abs(seen))) + 0.1, 0.1, 1)
    right = np.clip(confidence - over * (1.3 - np.abs(2 * confidence - 1)), 0, 1)
    luck = norm.cdf(0.7 * draw.normal(size=(n, 1)) + np.sqrt(0.51) * draw.normal(size=(n, each)))
    return confidence.ravel(), (luck < right).ravel(), np.repeat(np.arange(n), each)


def _aurra(confidence: np.ndarray, right: np.ndarray, images: np.ndarray) -> Estimate | None:
    return jackknife(aurra, {"samples": Answers([confidence, right], images)})


def _calibration(compute: Callable[..., float]) -> Callable[..., Estimate | None]:
    return lambda confidence, right, images: calibration_estimate(compute, confidence, right, images)


def of_answers() -> Iterator[dict[str, Any]]:
    """Figures of confidence and correctness, an image having one answer, or five that go together."""
    repetitions = 200
    figures: dict[str, tuple[Callable[..., float], Callable[..., Estimate | None]]] = {
        "ECE": (expected_calibration_error, _calibration(expected_calibration_error)),
        "RMS CE": (rms_calibration_error, _calibration(rms_calibration_error)),
        "AURRA": (aurra, _aurra),
    }
    for each, over, n in product((1, 5), (0.0, 0.02, 0.05, 0.1), (20, 60, 300, 2_000)):
        draw = np.random.default_rng(3)
        many = answers(draw, 400_000, over, 1)[:2]
        truths = {name: 0.0 if not over and name != "AURRA" else one(*many) for name, (one, _) in figures.items()}
        rows = [answers(draw, n, over, each) for _ in range(repetitions)]
        for name, (_, estimate) in figures.items():
            found = [one.interval for one in (estimate(*row) for row in rows) if one]
            covered = np.mean([low <= truths[name] <= high for low, high in found])
            yield {"figure": name, "answers of an image": each, "overconfidence": over, "n": n} | {
                "covers": covered,
                "no interval": 1 - len(found) / repetitions,
            }


def of_outliers() -> Iterator[dict[str, Any]]:
    """Outliers one standard deviation from the others."""
    for (outliers, inliers), compute in product(
        ((20, 20), (50, 200), (300, 500), (2_000, 2_000)), (auroc, aupr, fpr_at_recall)
    ):
        draw, repetitions = np.random.default_rng(3), 400
        sets = (("out", 1, outliers), ("in", 0, inliers))
        share = 600_000 // (outliers + inliers)
        truth = compute(draw.normal(1, 1, outliers * share), draw.normal(0, 1, inliers * share))
        found = [
            jackknife(compute, {name: Answers([draw.normal(shift, 1, count)]) for name, shift, count in sets})
            for _ in range(repetitions)
        ]
        covered = np.mean([one.interval.low <= truth <= one.interval.high for one in found if one])
        yield {"figure": compute.__name__, "outliers": outliers, "n": outliers + inliers, "covers": covered}


def bias() -> Iterator[dict[str, Any]]:
    """ECE and its debiased form: mean excess over the true one, and how often the debiased one is negative."""
    for over, n in product((0.0, 0.05, 0.1), (100, 597, 5_000)):
        draw = np.random.default_rng(4)
        truth = expected_calibration_error(*answers(draw, 1_000_000, over, 1)[:2]) if over else 0.0
        rows = [answers(draw, n, over, 1)[:2] for _ in range(1_000)]
        debiased = np.array([debiased_ece(*row) for row in rows])
        yield {"overconfidence": over, "n": n, "true ECE": truth} | {
            "excess": np.mean([expected_calibration_error(*row) for row in rows]) - truth,
            "excess debiased": debiased.mean() - truth,
            "debiased negative": (debiased < 0).mean(),
            "if calibrated": np.mean([calibrated_ece(confidence) for confidence, _ in rows]),
        }


def looking_again() -> Iterator[dict[str, Any]]:
    """Flips until the always-valid p decides, looking after each, and flips of a single exact test of power 0.8.

    At a share of 0.5 there is no difference: how often either is wrong, the exact test looked at after each flip.
    """
    most, repetitions = 4_000, 1_000
    for share in (0.5, 0.6, 0.7, 0.8):
        gained = np.cumsum(np.random.default_rng(2).random((repetitions, most)) < share, axis=1)
        looks = np.arange(1, most + 1)
        valid, exact = (_first(p, gained, looks) for p in (always_valid_p, mcnemar_exact))
        row: dict[str, Any] = {"share gained": share, "decided": np.isfinite(valid).mean()}
        if share == 0.5:
            yield row | {"decided by the exact p": np.isfinite(exact).mean()}
            continue
        single = next(
            n
            for n in range(6, most)
            if binom.cdf(_fewest_lost(n), n, 1 - share) >= 0.8  # so many are lost at most
        )
        yield row | {"median flips": np.median(valid), "flips for 0.8": np.quantile(valid, 0.8), "single test": single}


def _fewest_lost(n: int) -> int:
    """The most that may be lost of n flips where the exact test decides."""
    return int(binom.ppf(ALPHA / 2, n, 0.5)) - 1


def _first(p: Callable[[int, int], float], gained: np.ndarray, looks: np.ndarray) -> np.ndarray:
    """Flips at the first p of 0.05 or less; infinite if there is none."""
    # Of n flips p falls with the distance from n/2; so one threshold for each n.
    least = np.array([_threshold(p, int(n)) for n in looks])
    reached = np.maximum(gained, looks - gained) >= least
    return np.where(reached.any(axis=1), reached.argmax(axis=1) + 1.0, np.inf)


def _threshold(p: Callable[[int, int], float], n: int) -> int:
    low, high = (n + 1) // 2, n + 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if middle <= n and p(n - middle, middle) <= ALPHA else (middle + 1, high)
    return low


def of_arms() -> Iterator[dict[str, Any]]:
    """Verdicts about mechanisms that do not differ: by arms of seeds, and by one seed of each as if it were both."""
    n, repetitions = 597, 1_000
    ease = np.random.default_rng(5).beta(4, 1, n) * 0.9
    for seeds, spread in product((3, 5, 10), (0.0, 0.01, 0.02)):
        draw, by_arms, by_pair = np.random.default_rng(6), 0, 0
        for _ in range(repetitions):
            one, other = (
                draw.random((seeds, n)) < np.clip(ease + draw.normal(0, spread, (seeds, 1)), 0, 1) for _ in range(2)
            )
            by_arms += compare_arms(one.astype(float), other.astype(float)).p <= ALPHA
            lost, gained = int((one[0] & ~other[0]).sum()), int((other[0] & ~one[0]).sum())
            by_pair += mcnemar_exact(lost, gained) <= ALPHA
        yield {
            "seeds": seeds,
            "sd of seeds": spread,
            "by arms": by_arms / repetitions,
            "by a pair": by_pair / repetitions,
        }


def families() -> Iterator[dict[str, Any]]:
    """Some verdict on a row without a difference, and the rows with one that are decided: by Holm and by max-T.

    The threats grow in strength; `alike` is the part of a margin's noise that they share. Under the first `differ` of
    them an image's margin is larger by 0.15 for the candidate.
    """
    repetitions = 300
    for (n, rows, alike), part in product(
        ((100, 5, 0.9), (597, 5, 0.9), (597, 20, 0.9), (597, 20, 0.5), (597, 20, 0.0)), (0.0, 0.5, 1.0)
    ):
        draw, differ = np.random.default_rng(1), np.arange(rows) < int(part * rows)
        wrong, decided = np.zeros(2), np.zeros(2)
        for repetition in range(repetitions):
            ease = draw.normal(1.0, 1.0, (n, 1)) - np.linspace(0, 1.5, rows)
            one, other = (
                ease
                + 0.5 * (np.sqrt(alike) * draw.normal(size=(n, 1)) + np.sqrt(1 - alike) * draw.normal(size=(n, rows)))
                for _ in range(2)
            )
            found = (other + 0.15 * differ > 0).astype(np.int8) - (one > 0).astype(np.int8)
            exact = np.array([mcnemar_exact(int((row < 0).sum()), int((row > 0).sum())) for row in found.T])
            both = np.stack([holm(exact), max_t(found, draws=999, seed=repetition)]) <= ALPHA
            wrong += both[:, ~differ].any(axis=1)
            decided += both[:, differ].mean(axis=1) if differ.any() else 0
        yield {"n": n, "rows": rows, "alike": alike, "differ": int(differ.sum())} | {
            f"{what} by {how}": value
            for what, values in (("wrong", wrong / repetitions), ("decided", decided / repetitions))
            for how, value in zip(("Holm", "max-T"), values, strict=True)
        }


if __name__ == "__main__":
    rows: list[dict[str, Any]] = []
    for table in (of_arms, looking_again, families, areas, of_answers, of_outliers, bias):
        made = list(table())
        print(f"{(table.__doc__ or '').strip()}\n{pd.DataFrame(made).to_string(index=False)}\n", flush=True)
        rows += [{"table": table.__name__} | row for row in made]
    pd.DataFrame(rows).to_csv(OUT, index=False, float_format="%.4f")
