"""Exact tests of a drop: their size by enumeration, and p by an implementation that shares no code."""

import math

import numpy as np
import pytest

from robustbench_twicing.metrics.drops import GAMMA, exceeded_p, fewest_samples, ruled_out_p
from robustbench_twicing.metrics.intervals import paired_score
from tests.oracles.statistics import exact_drop_p

LEVELS = (0.01, 0.05, 0.1)


def _tables(n: int) -> list[tuple[int, int]]:
    return [(lost, gained) for lost in range(n + 1) for gained in range(n + 1 - lost)]


def _chance(tables: list[tuple[int, int]], n: int, share: float, drop: float) -> float:
    """Probability of any of these tables, by the multinomial formula, over shares that change sides."""
    chances = (share + drop) / 2, (share - drop) / 2, 1 - share
    total = 0.0
    for lost, gained in tables:
        ways = math.comb(n, lost) * math.comb(n - lost, gained)
        total += ways * chances[0] ** lost * chances[1] ** gained * chances[2] ** (n - lost - gained)
    return total


@pytest.mark.parametrize(("n", "drop"), [(6, 0.3), (14, 0.1), (14, 0.25), (24, 0.1)])
def test_no_level_is_exceeded_at_any_share_of_flips(n: int, drop: float) -> None:
    """No simulation: every table's probability, added up where the hypothesis holds and is rejected."""
    shares = np.linspace(drop, 1, 60)
    for name, test in (("pass", ruled_out_p), ("regressed", exceeded_p)):
        p = {table: test(*table, n, drop) for table in _tables(n)}
        for level in LEVELS:
            rejected = [table for table, value in p.items() if value <= level]
            size = max((_chance(rejected, n, share, drop) for share in shares), default=0.0)
            print(f"{name}: n {n}, drop {drop}, level {level}: {size:.4f}")
            assert size <= level


def test_the_asymptotic_test_exceeds_its_level_where_this_one_does_not() -> None:
    """597 samples, a true drop of 2.7/(597 + 2.7): no flip at all has p 0.05 by Tango's score, and happens in 6.8 %."""
    n, drop = 597, 2.7055 / (597 + 2.7055)
    assert paired_score(0, 0, n, -drop) == pytest.approx(1.645, abs=1e-3)
    assert (1 - drop) ** n == pytest.approx(0.067, abs=1e-3)
    assert ruled_out_p(0, 0, n, drop) == pytest.approx((1 - drop) ** n + GAMMA, rel=1e-6)


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (0, 3), (1, 2), (2, 1), (4, 0), (3, 3), (0, 9), (9, 0)])
@pytest.mark.parametrize("drop", [0.1, 0.35])
def test_p_is_that_of_a_plain_enumeration(lost: int, gained: int, drop: float) -> None:
    n = 9
    below, above = exact_drop_p(lost, gained, n, drop, GAMMA)
    # Above 0.3 the asymptotic p is returned, which no level comes near.
    for found, expected in ((ruled_out_p(lost, gained, n, drop), below), (exceeded_p(lost, gained, n, drop), above)):
        assert found == pytest.approx(expected, rel=2e-3, abs=1e-6) or (found > 0.3 and expected > 0.15)


@pytest.mark.parametrize("alpha", LEVELS)
@pytest.mark.parametrize("drop", [0.005, 0.01, 0.15])
def test_the_fewest_samples_are_the_fewest(alpha: float, drop: float) -> None:
    fewest = fewest_samples(drop, alpha)
    assert ruled_out_p(0, 0, fewest, drop) <= alpha < ruled_out_p(0, 0, fewest - 1, drop)
    assert fewest == pytest.approx(math.log(alpha) / math.log(1 - drop), abs=1.5)


def test_more_lost_speaks_for_a_drop_and_more_gained_against_it() -> None:
    ruled_out = [ruled_out_p(lost, 3, 597, 0.02) for lost in range(8)]
    exceeded = [exceeded_p(lost, 3, 597, 0.02) for lost in range(16, 40, 3)]
    assert ruled_out == sorted(ruled_out)
    assert exceeded == sorted(exceeded, reverse=True)
    assert ruled_out_p(3, 4, 597, 0.01) < ruled_out_p(3, 3, 597, 0.01)


def test_many_samples_agree_with_tango() -> None:
    normal = np.vectorize(lambda z: 0.5 * math.erfc(z / math.sqrt(2)))
    for lost, gained, n, drop in ((300, 290, 5_000, 0.01), (2_600, 2_400, 50_000, 0.006), (700, 250, 50_000, 0.008)):
        score = paired_score(lost, gained, n, -drop)
        assert ruled_out_p(lost, gained, n, drop) == pytest.approx(float(normal(score)), rel=0.1, abs=2 * GAMMA)
        assert exceeded_p(lost, gained, n, drop) == pytest.approx(float(normal(-score)), rel=0.1, abs=2 * GAMMA)
