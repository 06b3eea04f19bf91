import math
from inspect import signature

import numpy as np
import pytest
from scipy.stats import norm, t

from robustbench_twicing.catalog.denominators import denominator
from robustbench_twicing.catalog.suites import suite
from robustbench_twicing.errors import UserError
from robustbench_twicing.metrics.accuracy import curve_area, mean
from robustbench_twicing.metrics.calibration import auroc, aurra, expected_calibration_error, rms_calibration_error
from robustbench_twicing.metrics.corruption_error import errors_by_cell, mce, relative_mce
from robustbench_twicing.metrics.intervals import mean_interval
from robustbench_twicing.metrics.jackknife import Answers, calibration_estimate, jackknife, jackknife_difference
from robustbench_twicing.metrics.left_out import AT_ONCE, OF_HITS
from tests.oracles.statistics import delong_difference

ALEXNET, IMAGENET_C = denominator("alexnet"), suite("imagenet-c")
COMMON, SEVERITIES = IMAGENET_C.common, IMAGENET_C.severities
OVER = IMAGENET_C.families, SEVERITIES
CELLS = [(name, severity) for name in COMMON for severity in SEVERITIES]


def suite_outcomes(generator, images, skill):
    """Outcomes under the 75 cells that go together for an image: some images are hard under every corruption."""
    ease = generator.normal(skill, 1.0, (images, 1)) - 0.3 * np.array([severity for _, severity in CELLS])
    return ease + generator.normal(0, 1, (images, len(CELLS))) > 0


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


def test_outcomes_of_one_image_count_once():
    outcomes = suite_outcomes(np.random.default_rng(9), 400, 1.2)
    errors = errors_by_cell(outcomes, CELLS)
    interval = mean_interval(mce(errors, ALEXNET.by_cell, *OVER), (0.0, 140.0))
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
    for _ in range(repetitions):
        for which, values in enumerate(differences(100)):
            interval = mean_interval(values, ((-140.0, 140.0), (-1.0, 1.0))[which])
            covered[which] += interval.low <= truth[which] <= interval.high
    print(f"95 % of 100 images: covers {covered[0] / repetitions:.1%} (mCE), {covered[1] / repetitions:.1%} (area)")
    # Three standard errors of a binomial with p = 0.95, below; at 100 images the pseudo-images widen it.
    assert (covered / repetitions >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / repetitions)).all()


# --- any figure, without each group of images in turn ----------------------------------------------------------------


def scores(generator, count, shift, shared):
    """Two models' scores of the same samples: what makes a sample odd is partly common to both."""
    common = generator.normal(shift, 1, count)
    return [shared * common + (1 - shared) * generator.normal(shift, 1, count) for _ in range(2)]


def test_differences_of_areas_have_delongs_interval():
    """On average: forty values know a standard error to 11 %, DeLong's of 2,000 and 3,000 scores to about 2 %."""
    widths = []
    for seed in range(8):
        generator = np.random.default_rng(seed)
        outliers, inliers = scores(generator, 2000, 1.0, 0.7), scores(generator, 3000, 0.0, 0.7)
        sides = [{"out": Answers([one]), "in": Answers([other])} for one, other in zip(outliers, inliers, strict=True)]
        found = jackknife_difference(auroc, *sides)
        value, low, high = delong_difference(*zip(outliers, inliers, strict=True), level=0.95)
        assert found.value == pytest.approx(value)
        widths.append((found.interval.high - found.interval.low) / (high - low))
    print(f"as wide as DeLong's: {np.mean(widths):.2f}")
    student = t.ppf(0.975, 39) / norm.ppf(0.975)
    assert np.mean(widths) == pytest.approx(student, abs=3 * 0.11 / math.sqrt(8))


def test_a_mean_has_students_interval_where_every_image_is_a_group():
    values = np.array([0.1, 0.4, 0.2, 0.9])
    found = jackknife(lambda some: float(some.mean()), {"all": Answers([values])})
    half = t.ppf(0.975, 3) * values.std(ddof=1) / 2
    assert found.value == pytest.approx(0.4)
    assert found.interval == pytest.approx((0.4 - half if half < 0.4 else 0.0, 0.4 + half if half < 0.6 else 1.0))


def test_samples_of_one_image_leave_together():
    """Ten copies of the same answers are no more evidence than one."""
    generator = np.random.default_rng(4)
    confidence, right = answers(generator, 400, 0.1)
    once = jackknife(aurra, {"all": Answers([confidence, right])})
    tenfold = [np.tile(confidence, 10), np.tile(right, 10)]
    copied = jackknife(aurra, {"all": Answers(tenfold, np.tile(np.arange(400), 10))})
    assert copied.interval == pytest.approx(once.interval, abs=0.02)
    thought_independent = jackknife(aurra, {"all": Answers(tenfold)})
    assert np.diff(thought_independent.interval) < np.diff(once.interval) / 2


def test_a_group_leaves_both_models_and_all_arrays_of_a_set():
    generator = np.random.default_rng(4)
    values, right = generator.random(50), generator.random(50) < 0.5
    same = {"samples": Answers([values, right])}
    assert jackknife_difference(lambda v, r: float((v * r).mean()), same, same) is None
    aligned = {"samples": Answers([np.arange(50.0), np.arange(50.0)])}
    assert jackknife(lambda a, b: float(np.abs(a - b).max()), aligned) is None


def test_answers_that_are_all_alike_tell_nothing():
    assert jackknife(aurra, {"all": Answers([np.linspace(0.5, 1, 40), np.ones(40, dtype=bool)])}) is None


@pytest.mark.parametrize("compute", list(AT_ONCE), ids=lambda one: one.__name__)
@pytest.mark.parametrize("decimals", [2, 12])
def test_leaving_every_group_out_at_once_is_leaving_them_out_one_by_one(compute, decimals):
    generator = np.random.default_rng(6)
    confidence, right = answers(generator, 300, 0.1)
    arrays = [np.round(confidence, decimals), right][: len(signature(compute).parameters)]
    groups = generator.permutation(300) % 20
    one_by_one = [compute(*(array[groups != group] for array in arrays)) for group in range(20)]
    assert AT_ONCE[compute](*arrays, groups, 20) == pytest.approx(one_by_one)


def test_the_interval_of_an_unbounded_mean_is_not_cut_at_one():
    losses = np.random.default_rng(5).exponential(2.0, 400)
    found = jackknife(mean, {"all": Answers([losses])}, most=math.inf)
    student = t.ppf(0.975, 39) * losses.std(ddof=1) / 20
    assert found.value == pytest.approx(losses.mean())
    assert found.value > 1
    assert (found.interval.high - found.interval.low) / 2 == pytest.approx(student, rel=0.35)  # 3 of its errors, 11 %


@pytest.mark.parametrize("count", [0, 1])
def test_sets_too_small_to_leave_images_out_are_refused(count):
    with pytest.raises(UserError, match=f"at least 2 images, not {count}"):
        jackknife(auroc, {"out": Answers([np.zeros(5)]), "in": Answers([np.zeros(count)])})


def answers(generator, count, over):
    """Confidences and answers of a model that is `over` too confident in the middle; 0 is calibrated."""
    confidence = np.clip(0.9 / (1 + np.exp(-abs(generator.normal(1.5, 1.5, count)))) + 0.1, 0.1, 1)
    return confidence, generator.random(count) < np.clip(confidence - over * (1.3 - abs(2 * confidence - 1)), 0, 1)


@pytest.mark.parametrize("error", [expected_calibration_error, rms_calibration_error])
def test_a_calibrated_models_error_may_be_zero(error):
    generator = np.random.default_rng(2)
    lows = [calibration_estimate(error, *answers(generator, 300, 0.0)).interval.low for _ in range(60)]
    assert np.mean(np.array(lows) == 0) >= 0.9


def test_a_calibrated_models_answers_to_one_image_may_go_together():
    """Five answers to each image, right or wrong together: more often off than five independent ones."""
    generator = np.random.default_rng(2)
    lows = []
    for _ in range(40):
        confidence = np.repeat(answers(generator, 100, 0.0)[0], 5)
        images = np.repeat(np.arange(100), 5)
        right = generator.random(100)[images] < confidence
        lows.append(calibration_estimate(expected_calibration_error, confidence, right, images).interval.low)
    assert np.mean(np.array(lows) == 0) >= 0.85


@pytest.mark.parametrize("error", [expected_calibration_error, rms_calibration_error])
def test_intervals_of_calibration_errors_cover(error):
    generator = np.random.default_rng(3)
    truth = error(*answers(generator, 1_000_000, 0.1))
    intervals = [calibration_estimate(error, *answers(generator, 300, 0.1)).interval for _ in range(100)]
    covered = np.mean([low <= truth <= high for low, high in intervals])
    assert covered >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / 100)


@pytest.mark.parametrize("compute", OF_HITS)
@pytest.mark.parametrize("samples", [60, 1234])
@pytest.mark.parametrize("ties", [False, True])
def test_many_answers_with_the_same_confidences_are_judged_as_each_would_be(compute, samples, ties):
    generator = np.random.default_rng(samples)
    confidence = np.sort(generator.random(samples))
    confidence = np.round(confidence, 1) if ties else confidence
    error = OF_HITS[compute](confidence)
    for _ in range(3):
        correct = generator.random(samples) < confidence
        assert error(correct) == pytest.approx(compute(confidence, correct), abs=1e-12)
