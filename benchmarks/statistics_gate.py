"""How often is the gate wrong, and which drops does it find?

    python benchmarks/statistics_gate.py     # prints the tables, writes benchmarks/statistics_gate.csv

Simulated nights: n images, of which a share changes sides by chance, half of them each way, and more are lost where
there is a true drop. Every table is seeded. docs/gate.md cites the numbers.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri
from scipy.stats import multinomial

from robustbench_twicing.metrics.arms import compare_arms, margin_p, one_sided
from robustbench_twicing.metrics.drops import exceeded_p, ruled_out_p
from robustbench_twicing.metrics.intervals import paired_score

OUT = Path(__file__).with_suffix(".csv")
SIZES = (597, 5_000, 50_000)
ALPHA, NIGHTS = 0.05, 1_000
TOLERANCES = {597: 0.025, 5_000: 0.01, 50_000: 0.01}
NOISE = 0.01
"""Share of the images that change sides by chance."""

cached_exceeded, cached_ruled_out = cache(exceeded_p), cache(ruled_out_p)


def draw(n: int, drop: float, noise: float, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Lost and gained images, of which `noise` change sides by chance and `drop` more are lost."""
    chances = [noise / 2 + drop, noise / 2, 1 - noise - drop]
    return np.random.default_rng(seed).multinomial(n, chances, shape)[..., :2]


def rejects(test: Any, counts: np.ndarray, n: int, drop: float, level: float, roughly: bool = False) -> np.ndarray:
    """Whether the hypothesis of a test is rejected, for every pair of counts.

    The exact p is computed where the asymptotic one is near the level: up to 1.5 times it, of 5,000 images and more
    down to 0.7 times it. With `roughly`, not at all of 50,000 images, where the two differ by less than a hundredth.
    """
    flat, where = np.unique(counts.reshape(-1, 2), axis=0, return_inverse=True)
    side = -1 if test is cached_exceeded else 1
    found = []
    for lost, gained in flat.tolist():
        ratio = ndtr(-side * paired_score(lost, gained, n, -drop)) / level
        if (n >= 5_000 and ratio < 0.7) or ratio > 1.5 or (roughly and n >= 50_000):
            found.append(ratio <= 1)
        else:
            found.append(test(lost, gained, n, drop) <= level)
    return np.array(found)[where].reshape(counts.shape[:-1])


def false_alarms() -> Iterator[dict[str, Any]]:
    """Nights called regressed though no cell dropped by more than its tolerance; before: by the point estimate."""
    for n in (5_000, 50_000):
        for share in (0.0, 0.9, 1.0):
            counts = draw(n, share * 0.01, NOISE, (NIGHTS, 20), seed=1)
            lost, gained = counts[..., 0].astype(float), counts[..., 1]
            beyond = (lost - gained) / n > 0.01
            alarms = rejects(cached_exceeded, counts, n, 0.01, ALPHA / 20).any(axis=1)
            yield {
                "table": "false alarm",
                "n": n,
                "cells": 20,
                "tolerance": 0.01,
                "drop": share * 0.01,
                "before": float(beyond.any(axis=1).mean()),
                "rate": float(alarms.mean()),
            }


def false_passes() -> Iterator[dict[str, Any]]:
    """The largest chance to pass with a drop of exactly the tolerance, over the share that changes sides, exactly.

    The last drop of each alpha is the one at which the asymptotic p of identical answers is alpha.
    """
    for alpha in (0.01, 0.05, 0.1):
        score_of_nothing = ndtri(alpha) ** 2
        for n, drop in ((40, 0.1), (100, 0.05), (100, score_of_nothing / (100 + score_of_nothing))):
            tables = np.array([(a, b) for a in range(n // 2) for b in range(n // 2) if a + b <= n])
            score = [paired_score(a, b, n, -drop) for a, b in tables.tolist()]
            tango = ndtr(-np.array(score)) <= alpha
            exact = rejects(cached_ruled_out, tables, n, drop, alpha)
            chances = [
                multinomial.pmf(
                    np.column_stack([tables, n - tables.sum(axis=1)]),
                    n,
                    [(share + drop) / 2, (share - drop) / 2, 1 - share],
                )
                for share in np.linspace(drop, 0.4, 60)
            ]
            yield {
                "table": "false pass",
                "alpha": alpha,
                "n": n,
                "tolerance": drop,
                "before": max(float(chance[tango].sum()) for chance in chances),
                "rate": max(float(chance[exact].sum()) for chance in chances),
            }


def power() -> Iterator[dict[str, Any]]:
    """The smallest true drop that is called regressed on 80 % of nights, alone and as one of 20 cells."""
    for n in SIZES:
        tolerance = TOLERANCES[n]
        for noise in (0.01, 0.05):
            for cells in (1, 20):
                low, high = tolerance, tolerance + 0.2
                while high - low > 0.0004:
                    middle = (low + high) / 2
                    counts = draw(n, middle, noise, (NIGHTS,), seed=2)
                    found = rejects(cached_exceeded, counts, n, tolerance, ALPHA / cells, roughly=True).mean() >= 0.8
                    low, high = (low, middle) if found else (middle, high)
                yield {
                    "table": "power",
                    "n": n,
                    "cells": cells,
                    "noise": noise,
                    "tolerance": tolerance,
                    "drop": round(high, 4),
                }


def shipped() -> Iterator[dict[str, Any]]:
    """Nights of the shipped plan: ten cells of 597 images at 2.5 points, two of them with a floor far below."""
    for drop in (0.0, 0.03, 0.05, 0.06, 0.07, 0.08):
        quiet = draw(597, 0.0, NOISE, (NIGHTS, 9), seed=3)
        hit = draw(597, drop, NOISE, (NIGHTS, 1), seed=4)
        counts = np.concatenate([quiet, hit], axis=1)
        regressed = rejects(cached_exceeded, counts, 597, 0.025, ALPHA / 12).any(axis=1)
        passed = rejects(cached_ruled_out, counts, 597, 0.025, ALPHA).all(axis=1)
        yield {"table": "nightly", "n": 597, "cells": 10, "tolerance": 0.025, "drop": drop} | {
            "rate": float(regressed.mean()),
            "passes": float(passed.mean()),
        }


def arms() -> Iterator[dict[str, Any]]:
    """Retrained arms, the sd over seeds 2 points: alarms and passes without a drop, at the tolerance, and beyond it."""
    n, tolerance, spread = 597, 0.02, 0.02
    ease = np.random.default_rng(5).beta(4, 1, n) * 0.9
    for seeds in (3, 5, 10):
        for drop in (0.0, 0.02, 0.06, 0.1):
            generator, alarms, passes = np.random.default_rng(6), 0, 0
            repetitions = 600
            for _ in range(repetitions):
                sides = [
                    (generator.random((seeds, n)) < np.clip(ease + generator.normal(-fall, spread, (seeds, 1)), 0, 1))
                    for fall in (0.0, drop)
                ]
                test = compare_arms(sides[0].astype(float), sides[1].astype(float))
                alarms += one_sided(test, -tolerance)[0] <= ALPHA
                passes += margin_p(test, tolerance, n)[0] <= ALPHA
            yield {"table": "arms", "n": n, "seeds": seeds, "tolerance": tolerance, "drop": drop} | {
                "rate": alarms / repetitions,
                "passes": passes / repetitions,
            }


def one_retrained_model() -> Iterator[dict[str, Any]]:
    """The same without arms: one model a night, judged by its flips as if its weights were the matter."""
    n, tolerance = 597, 0.02
    ease = np.random.default_rng(5).beta(4, 1, n) * 0.9
    for drop in (0.0, 0.02):
        generator, alarms, repetitions = np.random.default_rng(7), 0, 1_000
        for _ in range(repetitions):
            before, now = (
                generator.random(n) < np.clip(ease + generator.normal(-fall, 0.02), 0, 1) for fall in (0.0, drop)
            )
            alarms += exceeded_p(int((before & ~now).sum()), int((now & ~before).sum()), n, tolerance) <= ALPHA
        yield {"table": "one model", "n": n, "seeds": 1, "tolerance": tolerance, "drop": drop} | {
            "rate": alarms / repetitions
        }


if __name__ == "__main__":
    rows: list[dict[str, Any]] = []
    for table in (false_alarms, false_passes, power, shipped, one_retrained_model, arms):
        made = list(table())
        print(f"{(table.__doc__ or '').strip()}\n{pd.DataFrame(made).to_string(index=False)}\n", flush=True)
        rows += made
    pd.DataFrame(rows).to_csv(OUT, index=False, float_format="%.4f")
