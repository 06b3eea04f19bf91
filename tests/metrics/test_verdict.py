import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from robustbench_twicing.errors import UserError
from robustbench_twicing.metrics.intervals import paired_difference_interval
from robustbench_twicing.metrics.paired import Flips, count_flips
from robustbench_twicing.metrics.verdict import (
    compare,
    detectable_difference,
    equivalence_p,
    holm,
    mcnemar_exact,
    mcnemar_mid_p,
    not_worse_p,
    samples_needed,
)
from tests.oracles.statistics import exact_power, holm_by_closed_testing, mcnemar_by_enumeration


def flips(lost, gained, n=597):
    agreed = n - lost - gained
    return Flips(both_right=agreed // 2, lost=lost, gained=gained, both_wrong=agreed - agreed // 2)


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (0, 1), (3, 3), (1, 8), (15, 3), (30, 20), (2, 40), (250, 300)])
def test_mcnemar_agrees_with_enumeration_scipy_and_statsmodels(lost, gained):
    exact, mid = mcnemar_by_enumeration(lost, gained)
    assert mcnemar_exact(lost, gained) == pytest.approx(exact)
    assert mcnemar_mid_p(lost, gained) == pytest.approx(mid if lost != gained else 1)
    assert mcnemar_exact(lost, gained) == pytest.approx(mcnemar([[9, lost], [gained, 9]], exact=True).pvalue)
    if lost + gained:
        assert mcnemar_exact(lost, gained) == pytest.approx(binomtest(lost, lost + gained).pvalue)


def test_mcnemar_by_hand():
    # 1 of 6 fair coins or fewer, twice: 2 × (1 + 6) / 64; mid-p takes half of the 6 outcomes away on each side.
    assert mcnemar_exact(1, 5) == pytest.approx(14 / 64)
    assert mcnemar_mid_p(5, 1) == pytest.approx(8 / 64)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_closed_testing_with_bonferroni(p_values):
    assert holm(np.array(p_values)) == pytest.approx(np.array(holm_by_closed_testing(p_values)))


def test_holm_agrees_with_statsmodels():
    p_values = np.random.default_rng(0).beta(0.3, 2, 75)
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_holm_by_hand():
    # 4 × 0.01, 3 × 0.015, 2 × 0.03 and 0.04, each at least as large as the one before.
    assert holm(np.array([0.04, 0.01, 0.03, 0.015])) == pytest.approx(np.array([0.06, 0.04, 0.06, 0.045]))
    assert holm(np.array([])).size == 0


def test_verdicts_on_plain_cases():
    gain, drop, noise, same = compare([flips(3, 30), flips(60, 20), flips(20, 30), flips(0, 0)])
    assert (gain.verdict, drop.verdict) == ("better", "worse")
    assert noise.verdict == same.verdict == "no difference found"
    assert gain.interval.low > 0 > drop.interval.high
    assert gain.difference == pytest.approx(27 / 597)
    assert same.interval.low < 0 < same.interval.high


def test_a_family_asks_for_more_than_a_single_comparison():
    borderline = flips(8, 20)  # exact p = 0.036
    alone = compare([borderline])[0]
    among = compare([borderline, *[flips(10, 11)] * 9])[0]
    assert (alone.verdict, among.verdict) == ("better", "no difference found")
    assert among.p_holm == pytest.approx(10 * among.p)
    assert among.interval == alone.interval
    assert among.detectable_difference > alone.detectable_difference


def test_exchanging_the_models_exchanges_the_verdict():
    forward = compare([flips(5, 25), flips(9, 12)])
    backward = compare([flips(25, 5), flips(12, 9)])
    assert [result.verdict for result in backward] == ["worse", "no difference found"]
    for one, other in zip(forward, backward, strict=True):
        assert other.difference == -one.difference
        assert other.interval == pytest.approx((-one.interval.high, -one.interval.low))
        assert (other.p_holm, other.detectable_difference) == (one.p_holm, one.detectable_difference)


def test_no_samples_and_no_family():
    assert compare([]) == []
    nothing = compare([Flips(0, 0, 0, 0)])[0]
    assert nothing.verdict == "no difference found"
    assert math.isnan(nothing.difference)
    assert nothing.detectable_difference is None


@pytest.mark.parametrize("level", [0.05, 0.05 / 20])
@pytest.mark.parametrize(("n", "discordance"), [(100, 0.3), (597, 0.05), (597, 0.2), (5000, 0.02), (5000, 0.1)])
def test_the_detectable_difference_is_found_with_the_power_named(n, discordance, level):
    difference = detectable_difference(n, discordance, level)
    power = exact_power(n, discordance, difference, level)
    print(f"n {n}, {discordance:.0%} flips, level {level:.4f}: {difference:.4f} is found with {power:.3f}")
    # At least what is named, and by less than 0.1 more: the approximation leans to the safe side.
    assert 0.8 <= power <= 0.9
    if difference > 2 / n:
        assert exact_power(n, discordance, 0.8 * difference, level) < 0.75


def test_detectable_difference_when_few_samples_flip():
    # Nothing is detectable at this discordance, so flips in one direction only are supposed: six are needed at 0.05.
    for discordance in (0.0, 0.005):
        difference = detectable_difference(597, discordance)
        assert difference > discordance
        assert exact_power(597, difference, difference, 0.05) == pytest.approx(0.8, abs=1e-6)
    assert detectable_difference(5, 0.2) is None  # five flips cannot reach p <= 0.05
    assert detectable_difference(6, 0.2) is not None


@pytest.mark.parametrize(("lost", "gained"), [(20, 30), (5, 9), (150, 140)])
@pytest.mark.parametrize("n", [597, 5000])
def test_with_the_samples_needed_the_observed_difference_becomes_detectable(lost, gained, n):
    observed = flips(lost, gained, n)
    needed = samples_needed(abs(observed.difference), observed.discordance)
    assert detectable_difference(needed, observed.discordance) <= abs(observed.difference)
    # One sample fewer is not enough; the inverse is exact up to rounding where the formula holds.
    assert detectable_difference(needed - 1, observed.discordance) >= abs(observed.difference) * (1 - 1e-12)


def test_samples_needed_by_hand():
    # Discordance 0.1, difference 0.02: √n d - 1/√n = 1.96 √0.1 + 0.8416 √(0.1 - 0.0004) = 0.8854, so √n = 45.37.
    root = (0.8854 + math.sqrt(0.8854**2 + 4 * 0.02)) / 0.04
    assert samples_needed(0.02, 0.1) == pytest.approx(root**2, rel=2e-4)  # the constants above have four digits


@pytest.mark.parametrize(("lost", "gained", "n"), [(10, 8, 597), (30, 20, 5000), (0, 0, 500), (3, 20, 597)])
def test_margins_are_decided_as_by_the_90_percent_interval(lost, gained, n):
    low, high = paired_difference_interval(lost, gained, n, level=0.90)
    for margin in (0.001, 0.005, 0.01, 0.02, 0.05):
        table = flips(lost, gained, n)
        assert (not_worse_p(table, margin) < 0.05) == (low > -margin)
        assert (equivalence_p(table, margin) < 0.05) == (-margin < low and high < margin)


def test_no_difference_found_is_not_equivalence():
    small = flips(3, 4, 40)
    assert compare([small])[0].verdict == "no difference found"
    assert equivalence_p(small, 0.02) > 0.5
    assert equivalence_p(flips(300, 310, 40_000), 0.02) < 0.001
    assert math.isnan(equivalence_p(Flips(0, 0, 0, 0), 0.01))


@pytest.mark.parametrize("margin", [0.0, -0.01, 1.0, 5.0])
def test_margins_in_points_are_refused(margin):
    with pytest.raises(UserError, match="margin"):
        not_worse_p(flips(3, 4), margin)


def test_without_a_difference_a_verdict_is_wrong_at_most_at_its_rate():
    """No simulation: the probability of every split of up to 40 flips, added up where the verdict is wrong."""
    rates = []
    for count in range(41):
        splits = {gained: math.comb(count, gained) / 2**count for gained in range(count + 1)}
        verdicts = {gained: compare([flips(count - gained, gained)])[0].verdict for gained in splits}
        rates.append(sum(p for gained, p in splits.items() if verdicts[gained] != "no difference found"))
    print(f"largest rate of wrong verdicts at a number of flips: {max(rates):.4f}")
    assert 0.03 < max(rates) <= 0.05


def test_without_differences_a_family_has_a_wrong_verdict_at_most_at_its_rate():
    generator = np.random.default_rng(30)
    repetitions, members, samples, wrong = 250, 5, 400, 0
    for _ in range(repetitions):
        hardness = generator.normal(0, 1, (samples, 1))  # the same images under every threat: dependent tests
        right = [hardness + generator.normal(0, 0.5, (samples, members)) < 1 for _ in range(2)]
        family = [count_flips(a, b) for a, b in zip(right[0].T, right[1].T, strict=True)]
        wrong += any(result.verdict != "no difference found" for result in compare(family))
    print(f"families of {members} with a wrong verdict: {wrong / repetitions:.1%} of {repetitions}")
    # At most 5 %, plus three standard errors of a binomial with p = 0.05.
    assert wrong / repetitions <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / repetitions)


def test_a_true_difference_is_found_about_as_often_as_said():
    generator = np.random.default_rng(31)
    discordance, repetitions = 0.1, 400
    difference = detectable_difference(2000, discordance)
    shares = [(discordance - difference) / 2, (discordance + difference) / 2, 1 - discordance]
    found = [
        compare([flips(int(lost), int(gained), 2000)])[0].verdict
        for lost, gained, _ in generator.multinomial(2000, shares, size=repetitions)
    ]
    print(f"a detectable difference is found in {found.count('better') / repetitions:.1%} of {repetitions}")
    assert "worse" not in found
    # Exact power 0.80 to 0.90 (tested above), within three standard errors of a binomial with p = 0.8.
    assert 0.8 - 0.06 <= found.count("better") / repetitions <= 0.9 + 0.06
