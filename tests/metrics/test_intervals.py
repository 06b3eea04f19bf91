import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, hypergeom, norm
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from robustbench_twicing.errors import UserError
from robustbench_twicing.metrics.intervals import (
    finite_population_factor,
    mean_interval,
    paired_difference_interval,
    paired_score,
    unpaired_difference_interval,
    wilson_interval,
)
from tests.oracles.statistics import tango_interval_by_search, tango_score_by_likelihood

ROUNDING = 1e-9


@pytest.mark.parametrize("level", [0.8, 0.95, 0.999])
@pytest.mark.parametrize(("right", "n"), [(0, 1), (1, 1), (0, 10), (3, 10), (10, 10), (571, 597), (36095, 50000)])
def test_wilson_agrees_with_scipy_and_statsmodels(right, n, level):
    ours = wilson_interval(right, n, level)
    scipys = binomtest(right, n).proportion_ci(level, method="wilson")
    assert ours == pytest.approx((scipys.low, scipys.high), abs=ROUNDING)
    assert ours == pytest.approx(proportion_confint(right, n, 1 - level, method="wilson"), abs=ROUNDING)


def test_wilson_by_hand():
    # z = 2: the middle is (1/2 + 2/16) / (1 + 4/16) = 1/2, half of the width 2 √(1/64 + 1/256) / (1 + 4/16) = √5/10.
    low, high = wilson_interval(8, 16, level=2 * norm.cdf(2) - 1)
    assert (low, high) == pytest.approx((0.5 - math.sqrt(5) / 10, 0.5 + math.sqrt(5) / 10), abs=ROUNDING)


def test_no_sample_tells_nothing():
    assert wilson_interval(0, 0) == (0, 1)
    assert paired_difference_interval(0, 0, 0) == (-1, 1)


def test_wilson_covers_at_its_level():
    generator = np.random.default_rng(20)
    repetitions = 3000
    covered = 0
    for p, n in zip(
        generator.uniform(0.05, 0.95, repetitions), generator.integers(100, 1000, repetitions), strict=True
    ):
        low, high = wilson_interval(int(generator.binomial(n, p)), int(n))
        covered += low <= p <= high
    print(f"Wilson 95 %: covers {covered / repetitions:.2%} of {repetitions}")
    # Sampling error of the coverage: three standard errors of a binomial with p = 0.95.
    assert covered / repetitions == pytest.approx(0.95, abs=3 * math.sqrt(0.95 * 0.05 / repetitions))


@pytest.mark.parametrize("level", [0.9, 0.95])
@pytest.mark.parametrize(
    ("lost", "gained", "n"),
    [(2, 12, 50), (0, 1, 44), (20, 30, 597), (0, 7, 30), (40, 1, 100), (300, 299, 600), (2400, 2600, 50000)],
)
def test_paired_interval_inverts_the_likelihood_score(lost, gained, n, level):
    # 1e-6: the oracle's numerical maximum of the likelihood is flat to about the root of the machine precision.
    assert paired_difference_interval(lost, gained, n, level) == pytest.approx(
        tango_interval_by_search(lost, gained, n, level), abs=1e-6
    )


def test_paired_interval_reproduces_r():
    # R package PropCIs 0.3-0, scoreci.mp(25, 28, 618, 0.90), as printed by a public test suite: -0.0148 to 0.0247.
    assert paired_difference_interval(25, 28, 618, 0.90) == pytest.approx((-0.0148, 0.0247), abs=5e-5)


def test_paired_interval_without_any_flip():
    z = norm.ppf(0.975)
    end = z**2 / (597 + z**2)  # closed form, see the docstring
    assert paired_difference_interval(0, 0, 597) == pytest.approx((-end, end), abs=ROUNDING)


def test_paired_interval_when_every_sample_flips():
    z = norm.ppf(0.975)
    # All gained: the likelihood of d is ((1 + d) / 2)^n, the score (1 - d) √n / √(1 - d²), which is z at this end.
    assert paired_difference_interval(0, 5, 5) == pytest.approx(((5 - z**2) / (5 + z**2), 1.0), abs=ROUNDING)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 400), st.sampled_from([0.8, 0.95, 0.99]))
def test_paired_interval_contains_the_estimate_and_mirrors(lost, gained, agreed, level):
    n = lost + gained + agreed
    low, high = paired_difference_interval(lost, gained, n, level)
    mirrored = paired_difference_interval(gained, lost, n, level)
    assert -1 <= low <= ((gained - lost) / n if n else 0) <= high <= 1
    assert mirrored == pytest.approx((-high, -low), abs=ROUNDING)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 80), st.integers(0, 80), st.integers(1, 500), st.floats(-0.9, 0.9))
def test_paired_score_agrees_with_the_numerical_likelihood(lost, gained, agreed, difference):
    n = lost + gained + agreed
    assume((gained - lost) / n != difference)  # 0 by definition, also where the variance is 0
    assert paired_score(lost, gained, n, difference) == pytest.approx(
        tango_score_by_likelihood(lost, gained, n, difference), rel=1e-5, abs=1e-5
    )


@pytest.mark.parametrize(("lost", "gained", "n"), [(5, 9, 100), (40, 12, 597), (2400, 2600, 50000)])
def test_paired_score_at_zero_is_mcnemar(lost, gained, n):
    table = [[n - lost - gained, lost], [gained, 0]]
    assert paired_score(lost, gained, n, 0.0) ** 2 == pytest.approx(
        mcnemar(table, exact=False, correction=False).statistic, rel=ROUNDING
    )


def test_paired_interval_covers_at_its_level():
    generator = np.random.default_rng(21)
    repetitions = 1500
    covered = 0
    for _ in range(repetitions):
        n = int(generator.integers(200, 1000))
        p_lost, p_gained = generator.uniform(0.02, 0.2, 2)
        lost, gained, _ = generator.multinomial(n, [p_lost, p_gained, 1 - p_lost - p_gained])
        low, high = paired_difference_interval(int(lost), int(gained), n)
        covered += low <= p_gained - p_lost <= high
    print(f"Tango 95 %: covers {covered / repetitions:.2%} of {repetitions}")
    # Sampling error of the coverage: three standard errors of a binomial with p = 0.95.
    assert covered / repetitions == pytest.approx(0.95, abs=3 * math.sqrt(0.95 * 0.05 / repetitions))


# --- different samples ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"), [((56, 70), (48, 80)), ((9, 10), (3, 10)), ((0, 10), (0, 20)), ((7, 7), (0, 5))]
)
def test_unpaired_intervals_agree_with_statsmodels(one, other):
    found = unpaired_difference_interval(*one, *other)
    assert found == pytest.approx(confint_proportions_2indep(*one, *other, method="newcomb", compare="diff"), abs=1e-6)


def test_an_unpaired_interval_is_newcombes():
    # Newcombe (1998), table II, (a) 56/70 - 48/80, method 10.
    assert unpaired_difference_interval(56, 70, 48, 80) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_no_sample_on_a_side_tells_nothing():
    assert unpaired_difference_interval(0, 0, 5, 9) == unpaired_difference_interval(5, 9, 0, 0) == (-1, 1)


# --- the mean of values of images -------------------------------------------------------------------------------------


def test_with_many_images_the_interval_of_a_mean_is_the_usual_one():
    values = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], size=40_000, p=[0.05, 0.88, 0.07])
    error = values.std(ddof=1) / math.sqrt(len(values))
    expected = values.mean() + error * norm.ppf([0.025, 0.975])
    assert mean_interval(values, (-1.0, 1.0)) == pytest.approx(expected, abs=0.01 * error)


def test_equal_values_have_an_interval_with_a_width():
    low, high = mean_interval(np.zeros(10), (-1.0, 1.0))
    assert low == -high
    assert high == pytest.approx(2.2010 * math.sqrt(2 / 11 / 12), rel=1e-4)  # t of 11 degrees of freedom
    assert mean_interval(np.zeros(10), (0.0, 1.0)).low == 0


@pytest.mark.parametrize("n", [10, 50, 100, 597])
@pytest.mark.parametrize("accuracy", [0.5, 0.9, 0.995, 0.999])
def test_intervals_of_areas_cover_at_every_size(n, accuracy):
    """A robustness curve over three sizes, and a candidate whose margins are larger by 0.3 of their spread."""
    draw = np.random.default_rng(7)
    margin, steps, weights = math.sqrt(2) * norm.ppf(accuracy), np.array([0, 0.5, 1.5]), np.array([0.125, 0.5, 0.375])
    truth = float(
        (norm.cdf((margin + 0.3 - steps) / math.sqrt(2)) - norm.cdf((margin - steps) / math.sqrt(2))) @ weights
    )
    covered, repetitions = 0, 400
    for _ in range(repetitions):
        ease = margin + draw.normal(size=n)
        one, other = (ease + shift + draw.normal(size=n) for shift in (0, 0.3))
        areas = [(side[:, None] > steps) @ weights for side in (one, other)]
        low, high = mean_interval(areas[1] - areas[0], (-1.0, 1.0))
        covered += low <= truth <= high
    assert covered / repetitions >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / repetitions)


@pytest.mark.parametrize("count", [0, 1])
def test_one_image_has_no_interval(count):
    with pytest.raises(UserError, match=f"at least 2 samples, not {count}"):
        mean_interval(np.ones(count), (0.0, 1.0))


@pytest.mark.parametrize(("n", "available"), [(1, 10), (30, 40), (500, 597), (596, 597)])
def test_without_replacement_the_standard_error_is_the_hypergeometric_one(n: int, available: int) -> None:
    right = available * 2 // 5
    share = right / available
    with_replacement = math.sqrt(share * (1 - share) / n)
    exact = hypergeom(available, right, n).std() / n
    assert finite_population_factor(n, available) * with_replacement == pytest.approx(exact, abs=1e-12)
    assert finite_population_factor(available, available) == 0
