import math

import numpy as np
import pytest
from sklearn.metrics import auc

from robustbench_twicing.metrics.accuracy import accuracy, curve_area, half_accuracy_eps

EPS = np.array([0.0, 1.0, 2.0, 4.0]) / 255


def test_accuracy_is_the_share_of_hits():
    assert accuracy(np.array([True, True, False, True])) == 0.75
    assert math.isnan(accuracy(np.array([], dtype=bool)))


def test_area_by_hand():
    # Trapezoids over 0-1, 1-2, 2-4: 0.8, 0.5, 2 × 0.2 = 1.7; divided by the range of 4.
    assert curve_area(EPS, np.array([1.0, 0.6, 0.4, 0.0])) == pytest.approx(1.7 / 4)


def test_area_agrees_with_scikit_learn_and_is_one_for_a_perfect_model():
    accuracies = np.random.default_rng(0).random((5, 4))
    expected = [auc(EPS, row) / EPS[-1] for row in accuracies]
    assert curve_area(EPS, accuracies) == pytest.approx(np.array(expected))
    assert curve_area(EPS, np.ones(4)) == pytest.approx(1.0)


def test_area_is_the_mean_of_the_areas_of_the_images():
    outcomes = np.random.default_rng(1).random((50, 4)) < 0.5
    assert curve_area(EPS, outcomes.astype(float)).mean() == pytest.approx(curve_area(EPS, outcomes.mean(axis=0)))


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [
        ([0.8, 0.6, 0.2, 0.0], 1.5 / 255),  # half is 0.4, midway between 0.6 and 0.2
        ([0.8, 0.4, 0.2, 0.0], 1 / 255),  # reached at a measured point
        ([0.8, 0.3, 0.5, 0.1], 0.8 / 255),  # the first crossing counts: 0.8 of the way from 0.8 to 0.3
        ([0.8, 0.7, 0.6, 0.5], None),  # never reached
        ([0.0, 0.0, 0.0, 0.0], None),  # half of nothing
    ],
)
def test_eps_at_half_accuracy_by_hand(accuracies, expected):
    assert half_accuracy_eps(EPS, np.array(accuracies)) == (expected if expected is None else pytest.approx(expected))


def test_malformed_curves_are_refused():
    with pytest.raises(ValueError, match="increasing"):
        curve_area(np.array([0.0, 0.0]), np.array([1.0, 1.0]))
    with pytest.raises(ValueError, match="at least two"):
        curve_area(np.array([0.0]), np.array([1.0]))
    with pytest.raises(ValueError, match="eps 0"):
        half_accuracy_eps(EPS[1:], np.array([1.0, 0.5, 0.2]))
