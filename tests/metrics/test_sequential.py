import math

import numpy as np
import pytest
from scipy.integrate import quad

from robustbench_twicing.metrics.paired import Flips
from robustbench_twicing.metrics.sequential import always_valid_p, confidence_sequence
from robustbench_twicing.metrics.verdict import compare, mcnemar_exact

LOOKS = np.unique(np.geomspace(20, 20_000, 40).astype(int))


def looked_at(draw: np.random.Generator, lost: float, gained: float) -> list[Flips]:
    """One comparison looked at again and again, with more images each time."""
    outcome = np.cumsum(draw.choice(3, size=LOOKS[-1], p=[lost, gained, 1 - lost - gained])[:, None] == [0, 1], axis=0)
    return [Flips(int(n - outcome[n - 1].sum()), *outcome[n - 1].tolist(), 0) for n in LOOKS]


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (3, 9), (40, 11), (400, 300)])
def test_the_evidence_is_a_likelihood_averaged_over_all_shares(lost, gained):
    average = quad(lambda q: (2 * q) ** gained * (2 * (1 - q)) ** lost, 0, 1, points=[0.43], limit=200)[0]
    assert always_valid_p(lost, gained) == pytest.approx(min(1, 1 / average), rel=1e-6)


def test_looking_again_and_again_keeps_the_level():
    """Where the exact test, meant for one look, is wrong several times as often."""
    draw, wrong = np.random.default_rng(0), np.zeros(3)
    for _ in range(400):
        looks = looked_at(draw, 0.05, 0.05)
        wrong += [
            any(always_valid_p(one.lost, one.gained) <= 0.05 for one in looks),
            any(not low <= 0 <= high for low, high in map(confidence_sequence, looks)),
            any(mcnemar_exact(one.lost, one.gained) <= 0.05 for one in looks),
        ]
    print("wrong at some look: always valid {:.1%}, sequence {:.1%}, exact test {:.1%}".format(*wrong / 400))
    assert (wrong[:2] / 400 <= 0.05).all()
    assert wrong[2] / 400 > 0.12


@pytest.mark.parametrize(("lost", "gained"), [(0.01, 0.03), (0.2, 0.1), (0.0005, 0.0005)])
def test_the_sequence_holds_the_true_difference_at_all_looks(lost, gained):
    draw, missed = np.random.default_rng(1), 0
    for _ in range(300):
        missed += any(
            not low <= gained - lost <= high for low, high in map(confidence_sequence, looked_at(draw, lost, gained))
        )
    assert missed / 300 <= 0.05


def test_a_verdict_that_may_be_looked_at_again_needs_more():
    (once,), (again,) = (compare([Flips(500, 10, 26, 61)], sequential=how) for how in (False, True))
    assert (once.verdict, again.verdict) == ("better", "no difference found")
    assert again.interval.low < once.interval.low
    assert compare([Flips(400, 10, 60, 61)], sequential=True)[0].verdict == "better"


def test_nothing_seen_says_nothing():
    assert always_valid_p(0, 0) == 1
    assert confidence_sequence(Flips(0, 0, 0, 0)) == (-1, 1)
    assert math.isclose(always_valid_p(3, 17), always_valid_p(17, 3))
