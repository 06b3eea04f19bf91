import numpy as np
import pytest

from robustbench_twicing.metrics.max_t import max_t
from robustbench_twicing.metrics.verdict import holm, mcnemar_exact


def outcomes(
    draw: np.random.Generator, n: int = 150, rows: int = 8, shift: float = 0.0, alike: float = 0.9
) -> np.ndarray:
    """Candidate minus baseline, images × rows, of threats that fool the same images; `alike` 1 for one threat only."""
    ease = draw.normal(1.0, 1.0, (n, 1))
    sides = []
    for better in (0.0, shift):
        noise = np.sqrt(alike) * draw.normal(size=(n, 1)) + np.sqrt(1 - alike) * draw.normal(size=(n, rows))
        sides.append(ease + better + 0.5 * noise > np.linspace(0, 1, rows))
    return sides[1].astype(np.int8) - sides[0].astype(np.int8)


def exact(differences: np.ndarray) -> list[float]:
    return [mcnemar_exact(int((row < 0).sum()), int((row > 0).sum())) for row in differences.T]


def test_of_one_row_it_is_mcnemars_exact_test() -> None:
    for lost, gained in ((3, 12), (0, 6), (5, 5), (0, 0), (20, 33)):
        row = np.array([-1] * lost + [1] * gained + [0] * 40, dtype=np.int8)[:, None]
        # 9,999 draws: three standard errors, and the observed one that is counted with them
        assert max_t(row)[0] == pytest.approx(mcnemar_exact(lost, gained), abs=0.0152)


def test_a_row_repeated_costs_nothing_and_holm_multiplies_it() -> None:
    row = outcomes(np.random.default_rng(1), rows=1, shift=0.4)
    many = np.repeat(row, 10, axis=1)
    assert max_t(many) == pytest.approx(max_t(row)[0], abs=1e-12)
    assert holm(np.array(exact(many)))[0] == pytest.approx(min(1.0, 10 * exact(row)[0]))


def test_rows_decide_in_the_order_of_their_statistics_wherever_they_stand() -> None:
    differences = outcomes(np.random.default_rng(2), shift=0.3, alike=0.3)
    straight, turned = max_t(differences), max_t(differences[:, ::-1])
    assert turned[::-1] == pytest.approx(straight, abs=1e-12)
    assert max_t(-differences) == pytest.approx(straight, abs=0.02)
    assert (straight >= 1e-4).all()
    assert (straight <= 1).all()


def test_without_a_difference_some_row_is_decided_no_more_often_than_said() -> None:
    draw, repetitions = np.random.default_rng(3), 300
    wrong = sum(bool((max_t(outcomes(draw), draws=399, seed=one) <= 0.05).any()) for one in range(repetitions))
    assert wrong / repetitions <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / repetitions)


def test_with_a_difference_it_decides_more_rows_than_holm() -> None:
    draw, found, by_holm = np.random.default_rng(4), 0, 0
    for one in range(60):
        differences = outcomes(draw, n=400, shift=0.2)
        found += int((max_t(differences, draws=399, seed=one) <= 0.05).sum())
        by_holm += int((holm(np.array(exact(differences))) <= 0.05).sum())
    assert found > by_holm
