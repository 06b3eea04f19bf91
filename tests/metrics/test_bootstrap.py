import math

import numpy as np
import pytest
from scipy.stats import bootstrap, norm

from robustbench_twicing.catalog.denominators import denominator
from robustbench_twicing.catalog.suites import suite
from robustbench_twicing.errors import UserError
from robustbench_twicing.metrics.accuracy import curve_area
from robustbench_twicing.metrics.bootstrap import bootstrap_difference, bootstrap_mean
from robustbench_twicing.metrics.calibration import auroc
from robustbench_twicing.metrics.corruption_error import errors_by_cell, mce, relative_mce
from tests.oracles.statistics import delong_difference

ALEXNET, IMAGENET_C = denominator("alexnet"), suite("imagenet-c")
COMMON, SEVERITIES = IMAGENET_C.common, IMAGENET_C.severities
OVER = IMAGENET_C.families, SEVERITIES
CELLS = [(name, severity) for name in COMMON for severity in SEVERITIES]


def suite_outcomes(generator, images, skill):
    """Outcomes under the 75 cells that go together for an image: some images are hard under every corruption."""
    ease = generator.normal(skill, 1.0, (images, 1)) - 0.3 * np.array([severity for _, severity in CELLS])
    return ease + generator.normal(0, 1, (images, len(CELLS))) > 0


def test_interval_agrees_with_scipy_and_with_the_normal_approximation():
    values = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], size=2000, p=[0.05, 0.88, 0.07])
    ours = bootstrap_mean(values, resamples=8000, seed=1)
    scipys = bootstrap((values,), np.mean, n_resamples=8000, method="percentile", batch=500, rng=2).confidence_interval
    error = values.std(ddof=1) / math.sqrt(len(values))
    # The 2.5 % quantile of 8000 normal draws has a standard error of 0.03 standard deviations; five of two such.
    assert ours.interval == pytest.approx((scipys.low, scipys.high), abs=5 * 0.03 * math.sqrt(2) * error)
    assert ours.interval == pytest.approx(values.mean() + error * norm.ppf([0.025, 0.975]), abs=5 * 0.03 * error)
    assert ours.value == values.mean()


def test_the_same_seed_gives_the_same_interval():
    values = np.random.default_rng(0).random(100)
    assert bootstrap_mean(values, seed=3) == bootstrap_mean(values, seed=3)
    assert bootstrap_mean(values, seed=3) != bootstrap_mean(values, seed=4)


def test_drawing_in_parts_is_drawing_at_once(monkeypatch):
    values = np.random.default_rng(0).random(60)
    at_once = bootstrap_mean(values, seed=3)
    monkeypatch.setattr("robustbench_twicing.metrics.bootstrap._DRAWS_AT_ONCE", 700)
    assert bootstrap_mean(values, seed=3) == at_once


@pytest.mark.parametrize("per_class", [2, 5, 50])
def test_stratified_spread_is_that_of_a_stratified_mean(per_class):
    generator = np.random.default_rng(5)
    labels = np.repeat(np.arange(2000 // per_class), per_class)
    values = generator.normal(labels % 7, 1.0)  # classes of very different difficulty
    interval = bootstrap_mean(values, strata=labels, resamples=4000).interval
    # Textbook variance of a mean in equal strata: mean of the classes' own unbiased variances, over n.
    groups = values.reshape(-1, per_class)
    error = math.sqrt(groups.var(axis=1, ddof=1).mean() / len(values))
    half = (interval.high - interval.low) / 2
    # Half-width of 4000 draws: each end has a standard error of 0.042 standard deviations; four of them.
    assert half == pytest.approx(norm.ppf(0.975) * error, abs=4 * 0.042 / math.sqrt(2) * error)
    unstratified = bootstrap_mean(values, resamples=4000).interval
    assert unstratified.high - unstratified.low > 1.8 * 2 * half  # the spread between classes is 2, within 1


def test_strata_need_not_be_in_order():
    generator = np.random.default_rng(6)
    labels = np.repeat(np.arange(10), 20)
    values = generator.normal(labels, 1.0)
    order = generator.permutation(200)
    # Which image a draw picks changes with the order, so the intervals agree up to the error of 4000 draws only.
    one = bootstrap_mean(values, strata=labels, resamples=4000).interval
    other = bootstrap_mean(values[order], strata=labels[order], resamples=4000).interval
    error = 1 / math.sqrt(200)
    assert one == pytest.approx(other, abs=5 * 0.042 * math.sqrt(2) * error)


def test_a_class_with_one_image_turns_stratification_off():
    values = np.random.default_rng(0).random(50)
    labels = np.append(np.zeros(49, dtype=int), 1)
    assert bootstrap_mean(values, strata=labels) == bootstrap_mean(values)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_samples_are_refused(count):
    with pytest.raises(UserError, match=f"at least 2 samples, not {count}"):
        bootstrap_mean(np.ones(count))


def test_values_of_images_average_to_the_value_of_the_suite():
    generator = np.random.default_rng(7)
    outcomes = suite_outcomes(generator, 80, 1.5)
    clean = generator.random(80) < 0.9
    errors = dict(zip(CELLS, 1 - outcomes.mean(axis=0), strict=True))
    per_image = errors_by_cell(outcomes, CELLS)
    assert mce(per_image, ALEXNET.by_cell, *OVER).mean() == pytest.approx(mce(errors, ALEXNET.by_cell, *OVER))
    whole = relative_mce(errors, 1 - clean.mean(), ALEXNET.by_cell, ALEXNET.clean, *OVER)
    parts = relative_mce(per_image, (~clean).astype(float), ALEXNET.by_cell, ALEXNET.clean, *OVER)
    assert parts.mean() == pytest.approx(whole)


def test_outcomes_of_one_image_are_resampled_together():
    outcomes = suite_outcomes(np.random.default_rng(9), 400, 1.2)
    errors = errors_by_cell(outcomes, CELLS)
    interval = bootstrap_mean(mce(errors, ALEXNET.by_cell, *OVER)).interval
    # As if the 75 outcomes of an image were those of 75 images: variances of the cells' errors simply add up.
    weights = {name: 100 / 15 / sum(ALEXNET.by_cell[name, s] for s in SEVERITIES) for name in COMMON}
    variance = sum(weights[name] ** 2 * errors[name, s].var(ddof=1) / 400 for name, s in CELLS)
    ratio = (interval.high - interval.low) / (2 * norm.ppf(0.975) * math.sqrt(variance))
    print(f"interval of mCE by image is {ratio:.1f} times as wide as by outcome")
    assert ratio > 3


def test_paired_intervals_of_mce_and_area_cover_at_their_level():
    denominators = ALEXNET.by_cell
    generator = np.random.default_rng(8)
    eps = np.linspace(0, 1, len(CELLS))

    def differences(images):
        """Candidate minus baseline for each image; what makes an image hard is partly common to both models."""
        ease = generator.normal(1.2, 1.0, (images, 1)) - 0.3 * np.array([severity for _, severity in CELLS])
        models = [ease + generator.normal(gain, 0.5, (images, 1)) for gain in (0.0, 0.1)]
        outcomes = [model + generator.normal(0, 1, (images, len(CELLS))) > 0 for model in models]
        scores = [mce(errors_by_cell(one, CELLS), denominators, *OVER) for one in outcomes]
        areas = [curve_area(eps, one.astype(float)) for one in outcomes]
        return scores[1] - scores[0], areas[1] - areas[0]

    truth = [values.mean() for values in differences(10_000)]
    repetitions, covered = 200, np.zeros(2)
    labels = np.repeat(np.arange(10), 10)
    for repetition in range(repetitions):
        for which, values in enumerate(differences(100)):
            interval = bootstrap_mean(values, strata=labels, resamples=300, seed=repetition).interval
            covered[which] += interval.low <= truth[which] <= interval.high
    print(f"bootstrap 95 %: covers {covered[0] / repetitions:.1%} (mCE), {covered[1] / repetitions:.1%} (area)")
    # Three standard errors of a binomial with p = 0.95, and half a point for the 300 resamples and the measured truth.
    assert covered / repetitions == pytest.approx(0.95, abs=3 * math.sqrt(0.95 * 0.05 / repetitions) + 0.005)


# --- any figure, resampled --------------------------------------------------------------------------------------------


def scores(generator, count, shift, shared):
    """Two models' scores of the same samples: what makes a sample odd is partly common to both."""
    common = generator.normal(shift, 1, count)
    return [shared * common + (1 - shared) * generator.normal(shift, 1, count) for _ in range(2)]


def test_resampled_areas_have_delongs_interval():
    generator = np.random.default_rng(3)
    outliers, inliers = scores(generator, 300, 1.0, 0.7), scores(generator, 500, 0.0, 0.7)
    sides = [{"out": [one], "in": [other]} for one, other in zip(outliers, inliers, strict=True)]
    found = bootstrap_difference(auroc, *sides, resamples=2000)
    value, low, high = delong_difference(*zip(outliers, inliers, strict=True), level=0.95)
    assert found.value == pytest.approx(value)
    # 2,000 resamples know a quantile to about 4 % of half the interval's width (twice its standard error).
    assert found.interval == pytest.approx((low, high), abs=0.08 * (high - low) / 2 + 1e-3)


def test_one_draw_serves_both_models_and_all_arrays_of_a_set():
    generator = np.random.default_rng(4)
    values, right = generator.random(50), generator.random(50) < 0.5
    same = {"samples": [values, right]}
    assert bootstrap_difference(lambda v, r: float((v * r).mean()), same, same) == (0, (0, 0))
    aligned = {"samples": [np.arange(50.0), np.arange(50.0)]}
    found = bootstrap_difference(lambda a, b: float(np.abs(a - b).max()), aligned, aligned, resamples=20)
    assert found == (0, (0, 0))


@pytest.mark.parametrize("count", [0, 1])
def test_sets_too_small_to_resample_are_refused(count):
    sides = [{"out": [np.zeros(5)], "in": [np.zeros(count)]}] * 2
    with pytest.raises(UserError, match=f"at least 2 samples, not {count}"):
        bootstrap_difference(auroc, *sides)
