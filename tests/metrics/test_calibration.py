import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from robustbench_twicing.metrics.calibration import (
    aupr,
    aurc,
    auroc,
    aurra,
    calibrated_ece,
    debiased_ece,
    expected_calibration_error,
    fpr_at_recall,
    published_rms_calibration_error,
    rms_calibration_error,
)
from tests.oracles.statistics import aurra_by_loops, ece_by_loops, fpr_by_loops, rms_by_loops


def overconfident(samples, seed=0):
    generator = np.random.default_rng(seed)
    confidence = generator.beta(5, 2, samples)
    return confidence, generator.random(samples) < confidence**2


def shuffled(confidence, correct, seed=5):
    order = np.random.default_rng(seed).permutation(len(correct))
    return confidence[order], correct[order]


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_ece_agrees_with_loops(bins):
    confidence, correct = overconfident(500)
    confidence[:40] = np.round(confidence[:40] * 15) / 15  # some on the edges of bins
    expected = ece_by_loops(confidence, correct, bins)
    assert expected_calibration_error(confidence, correct, bins) == pytest.approx(expected)


def test_ece_by_hand():
    # Two bins of equal width: (0.3 and 0.5, one right of two), (0.9 and 0.7, both right).
    confidence = np.array([0.3, 0.5, 0.9, 0.7])
    correct = np.array([True, False, True, True])
    assert expected_calibration_error(confidence, correct, bins=2) == pytest.approx(0.5 * 0.1 + 0.5 * 0.2)


def test_the_null_level_is_what_calibrated_models_show_on_average():
    confidence = np.random.default_rng(1).beta(5, 2, 597)
    draw = np.random.default_rng(2)
    shown = [expected_calibration_error(confidence, draw.random(597) < confidence) for _ in range(2000)]
    assert calibrated_ece(confidence) == pytest.approx(np.mean(shown), rel=0.02)
    assert calibrated_ece(confidence) > 0.03  # far from nothing at this size


def test_the_debiased_error_is_the_simulated_one_of_kumar():
    confidence, correct = overconfident(400)
    index = np.searchsorted(np.arange(1, 15) / 15, confidence, side="left")
    draw, plain, again = np.random.default_rng(3), 0.0, 0.0
    for one in np.unique(index):
        here = index == one
        share, mean = here.mean(), correct[here].mean()
        redrawn = draw.normal(mean, np.sqrt(mean * (1 - mean) / here.sum()), 200_000)
        plain += share * abs(mean - confidence[here].mean())
        again += share * np.abs(redrawn - confidence[here].mean()).mean()
    assert debiased_ece(confidence, correct) == pytest.approx(2 * plain - again, abs=2e-4)


def test_the_debiased_error_is_nearer_to_the_truth():
    truth = expected_calibration_error(*overconfident(1_000_000))
    errors = np.array(
        [
            (expected_calibration_error(*some), debiased_ece(*some))
            for some in map(overconfident, [100] * 300, range(300))
        ]
    )
    plain, debiased = np.abs(errors.mean(axis=0) - truth)
    assert debiased < 0.5 * plain


def test_a_calibrated_model_has_no_error():
    confidence = np.repeat([0.25, 0.75], 400)
    correct = np.concatenate([np.arange(400) < 100, np.arange(400) < 300])
    assert expected_calibration_error(confidence, correct) == pytest.approx(0)
    assert rms_calibration_error(confidence, correct) == pytest.approx(0)


@pytest.mark.parametrize("samples", [40, 100, 250, 1000])
@pytest.mark.parametrize("omit", [False, True])
def test_rms_agrees_with_loops(samples, omit):
    confidence, correct = overconfident(samples)
    bins_left_out = int(omit)
    # Below one full bin there is a single bin, which the loop cannot build: pad the definition by a bin of all samples.
    bin_size = min(100, samples)
    expected = rms_by_loops(confidence, correct, bin_size, bins_left_out)
    assert rms_calibration_error(confidence, correct, omit_last_bin=omit) == pytest.approx(expected)


def test_rms_of_the_published_scripts_by_hand():
    # Bins of 2: (0.1, 0.2 | none right), (0.5, 0.6 | one right), the last (0.8, 0.9, 1.0 | two right).
    confidence = np.array([0.1, 0.2, 0.5, 0.6, 0.8, 0.9, 1.0])
    correct = np.array([False, False, True, False, True, True, False])
    first, second, last = 2 * 0.15**2, 2 * 0.05**2, 3 * (0.9 - 2 / 3) ** 2
    assert rms_calibration_error(confidence, correct, 2) == pytest.approx(math.sqrt((first + second + last) / 7))
    scripts = math.sqrt((first + second) / 7)
    assert rms_calibration_error(confidence, correct, 2, omit_last_bin=True) == pytest.approx(scripts)
    assert published_rms_calibration_error(confidence, correct, 2) == pytest.approx(scripts)
    # With one bin the scripts leave out everything: a perfect 0 of any model.
    assert math.isnan(published_rms_calibration_error(confidence, correct, 4))


def test_aurra_agrees_with_loops_and_by_hand():
    confidence, correct = overconfident(200)
    assert aurra(confidence, correct) == pytest.approx(aurra_by_loops(confidence, correct))
    # Most confident first: right, wrong, right: accuracies 1, 1/2, 2/3.
    assert aurra(np.array([0.9, 0.8, 0.7]), np.array([True, False, True])) == pytest.approx((1 + 1 / 2 + 2 / 3) / 3)


def test_the_area_of_risk_and_coverage_is_the_mean_error_of_the_most_confident():
    confidence, correct = overconfident(150, seed=3)
    order = np.argsort(-confidence)
    errors = [1 - correct[order[:k]].mean() for k in range(1, 151)]
    assert aurc(confidence, correct) == pytest.approx(np.mean(errors))
    assert aurc(np.array([0.9, 0.8, 0.7]), np.array([True, False, True])) == pytest.approx((0 + 1 / 2 + 1 / 3) / 3)


def test_equal_confidences_do_not_depend_on_the_order_of_rows():
    confidence, correct = overconfident(400)
    confidence = np.round(confidence, 1)  # many ties, as with a saturated softmax
    again = shuffled(confidence, correct)
    assert aurra(*again) == pytest.approx(aurra(confidence, correct))
    assert rms_calibration_error(*again) == pytest.approx(rms_calibration_error(confidence, correct))
    assert expected_calibration_error(*again) == pytest.approx(expected_calibration_error(confidence, correct))


def scores(positives, negatives, decimals, seed=0):
    generator = np.random.default_rng(seed)
    drawn = generator.normal(0.7, 1, positives), generator.normal(0, 1, negatives)
    return tuple(np.round(side, decimals) for side in drawn)


@pytest.mark.parametrize("decimals", [8, 1, 0])  # 0: nearly all scores are tied
@pytest.mark.parametrize(("positives", "negatives"), [(300, 500), (40, 7), (1, 1)])
def test_detection_agrees_with_scikit_learn(positives, negatives, decimals):
    out, inside = scores(positives, negatives, decimals)
    labels = np.repeat([1, 0], [positives, negatives])
    both = np.concatenate([out, inside])
    assert auroc(out, inside) == pytest.approx(roc_auc_score(labels, both))
    assert aupr(out, inside) == pytest.approx(average_precision_score(labels, both))
    false, true, _ = roc_curve(labels, both, drop_intermediate=False)
    assert fpr_at_recall(out, inside) in false[np.isclose(np.abs(true - 0.95), np.abs(true - 0.95).min())]
    assert fpr_at_recall(out, inside) == fpr_by_loops(out, inside, 0.95)


def test_detection_by_hand():
    # Positives 4, 2; negatives 3, 1: of four pairs three are in order. Recall 1/2 at precision 1, recall 1 at 2/3.
    out, inside = np.array([4.0, 2.0]), np.array([3.0, 1.0])
    assert auroc(out, inside) == 3 / 4
    assert aupr(out, inside) == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3)
    assert fpr_at_recall(out, inside) == 1 / 2  # recall 1 is nearer to 0.95 than recall 1/2
    assert fpr_at_recall(out, inside, recall=0.5) == 1 / 2  # thresholds 4 and 3 both have it; 3 lets one negative in


def test_exchanging_the_sides_and_the_sign_keeps_auroc_only():
    out, inside = scores(300, 200, 8)
    assert auroc(-inside, -out) == pytest.approx(auroc(out, inside))
    assert abs(aupr(-inside, -out) - aupr(out, inside)) > 0.05


def test_nothing_measured_is_not_a_number():
    none, no_hits, some = np.array([]), np.array([], dtype=bool), np.array([0.5])
    for metric in (expected_calibration_error, rms_calibration_error, published_rms_calibration_error, aurra, aurc):
        assert math.isnan(metric(none, no_hits))
    for metric in (auroc, aupr, fpr_at_recall):
        assert math.isnan(metric(none, some))
        assert math.isnan(metric(some, none))
