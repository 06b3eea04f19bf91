import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import t

from robustbench_twicing.errors import UserError
from robustbench_twicing.metrics.arms import compare_arms, detectable, seeds_needed
from tests.oracles import statistics


def arms(seed: int, seeds: int = 5, n: int = 200, shift: float = 0.0, noise: float = 0.5) -> list[np.ndarray]:
    """Answers of two arms: an image's difficulty, a seed's skill, an arm's own taste in images."""
    draw = np.random.default_rng(seed)
    difficulty = draw.normal(0, 1.5, n)
    found = []
    for arm in (0, 1):
        taste = draw.normal(0, 0.5, n)
        skill = draw.normal(shift * arm, noise, (seeds, 1))
        chance = 1 / (1 + np.exp(-(1.0 + skill + taste - difficulty)))
        found.append((draw.random((seeds, n)) < chance).astype(float))
    return found


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_the_variance_is_that_of_obuchowski_and_rockette(seed: int, seeds: int) -> None:
    baseline, candidate = arms(seed, seeds)
    found = compare_arms(baseline, candidate)
    difference, variance, df = statistics.crossed_test(baseline, candidate)
    assert found.difference == pytest.approx(difference, abs=1e-12)
    assert found.seed_variance + found.image_variance == pytest.approx(variance, rel=1e-9)
    assert found.df == pytest.approx(df, rel=1e-9)
    assert found.p == pytest.approx(2 * t.sf(abs(difference) / variance**0.5, df), rel=1e-9)


STUDIES: dict[str, Any] = json.loads((Path(__file__).parents[1] / "oracles" / "mrmcaov.json").read_text())["studies"]


@pytest.mark.parametrize("name", STUDIES)
def test_the_test_follows_from_what_mrmcaov_finds_in_the_same_answers(name: str) -> None:
    """Its components with cases random, and its whole test with cases fixed.

    Its own test with cases random multiplies the covariances by a wrong factor: docs/statistics.md.
    """
    study = STUDIES[name]
    baseline, candidate = (
        np.array([[float(answer) for answer in seed] for seed in study[arm]]) for arm in ("baseline", "candidate")
    )
    theirs, seeds = study["mrmcaov"], len(baseline)
    covariance = max(theirs["cov2"] - theirs["cov3"], 0.0)
    error = (2 / seeds * (theirs["mean_square"] + seeds * covariance)) ** 0.5
    df = (1 + seeds * covariance / theirs["mean_square"]) ** 2 * (2 * seeds - 2)
    found = compare_arms(baseline, candidate)
    assert found.seed_variance == pytest.approx(2 / seeds * theirs["mean_square"], rel=1e-12)
    assert found.image_variance == pytest.approx(2 * covariance, rel=1e-12, abs=1e-12)
    assert found.df == pytest.approx(df, rel=1e-12)
    assert found.p == pytest.approx(2 * t.sf(abs(found.difference) / error, df), rel=1e-12)

    fixed, theirs = compare_arms(baseline, candidate, images="fixed"), theirs["fixed"]
    assert fixed.seed_variance**0.5 == pytest.approx(theirs["error"], rel=1e-12)
    assert (fixed.t, fixed.df, fixed.p) == pytest.approx((theirs["t"], theirs["df"], theirs["p"]), rel=1e-9, abs=1e-9)
    assert fixed.interval == pytest.approx((theirs["low"], theirs["high"]), rel=1e-9)


def test_exchanging_the_arms_mirrors_the_test() -> None:
    baseline, candidate = arms(3)
    one, other = compare_arms(baseline, candidate), compare_arms(candidate, baseline)
    assert one.difference == -other.difference
    assert one.p == other.p
    assert one.interval.low == pytest.approx(-other.interval.high)


def test_the_order_of_seeds_and_images_plays_no_part() -> None:
    baseline, candidate = arms(4)
    draw = np.random.default_rng(0)
    columns = draw.permutation(baseline.shape[1])
    shuffled = compare_arms(baseline[draw.permutation(5)][:, columns], candidate[draw.permutation(5)][:, columns])
    straight = compare_arms(baseline, candidate)
    assert shuffled.p == pytest.approx(straight.p, rel=1e-9)
    assert shuffled.interval == pytest.approx(straight.interval, rel=1e-9)


def test_fixed_images_leave_only_the_seeds() -> None:
    baseline, candidate = arms(5)
    fixed = compare_arms(baseline, candidate, images="fixed")
    assert fixed.image_variance == 0
    assert fixed.seed_share == 1
    assert fixed.df == 8
    assert fixed.p <= compare_arms(baseline, candidate).p


def test_seeds_that_answer_alike_leave_the_images_and_a_normal_test() -> None:
    (first, *_), (second, *_) = arms(6)
    found = compare_arms(np.tile(first, (3, 1)), np.tile(second, (3, 1)))
    assert found.seed_variance == 0
    assert found.df == np.inf
    # Then it is the paired z test on images.
    differences = second - first
    assert found.image_variance == pytest.approx(differences.var(ddof=1) / len(first))


def test_arms_that_answer_alike_differ_in_nothing() -> None:
    first = np.tile(arms(7)[0][0], (3, 1))
    found = compare_arms(first, first)
    assert (found.difference, found.p, found.detectable) == (0, 1, 0)


def test_unequal_arms_have_welchs_degrees_of_freedom() -> None:
    baseline, candidate = arms(8, 7)[0], arms(8, 3)[1]
    baseline = baseline[:, :200]
    found = compare_arms(baseline, candidate, images="fixed")
    of_seeds = [arm.mean(axis=1).var(ddof=1) / len(arm) for arm in (baseline, candidate)]
    welch = sum(of_seeds) ** 2 / (of_seeds[0] ** 2 / 6 + of_seeds[1] ** 2 / 2)
    assert found.df == pytest.approx(welch)


@pytest.mark.parametrize(("seeds", "most"), [(3, 0.075), (5, 0.07)])
def test_without_a_difference_a_verdict_is_as_rare_as_promised(seeds: int, most: float) -> None:
    # 800 repetitions: three standard errors of 5 % are 2.3 points.
    false = np.mean([compare_arms(*arms(1000 + seed, seeds, 300)).p <= 0.05 for seed in range(800)])
    assert 0.02 <= false <= most


def test_the_detectable_difference_is_found_as_often_as_it_says() -> None:
    # Seeds alone: accuracies are normal, so the power is exact.
    size = detectable(2 * 0.02**2 / 5, 0.0, 8.0, power=0.8)
    draw = np.random.default_rng(1)
    first, second = draw.normal(0, 0.02, (4000, 5)), draw.normal(size, 0.02, (4000, 5))
    gap = second.mean(1) - first.mean(1)
    score = gap / np.sqrt((first.var(1, ddof=1) + second.var(1, ddof=1)) / 5)
    assert np.mean(2 * t.sf(abs(score), 8) <= 0.05) == pytest.approx(0.8, abs=0.02)


def test_more_images_do_not_replace_seeds() -> None:
    test = compare_arms(*arms(9, noise=0.8))
    assert test.seed_share > 0.5
    spread, image_spread = 5 * test.seed_variance, 200 * test.image_variance
    needed = [count or 999 for count in seeds_needed(0.05, spread, image_spread, (50, 200, 3200, 10**9)).values()]
    assert needed == sorted(needed, reverse=True)
    assert needed[-1] > 3


def test_the_seeds_needed_for_what_a_pilot_could_show_are_its_own() -> None:
    test = compare_arms(*arms(9, noise=0.8))
    spread, image_spread = 5 * test.seed_variance, 200 * test.image_variance
    assert seeds_needed(1.0001 * test.detectable, spread, image_spread, [200]) == {200: 5}
    assert seeds_needed(0.9999 * test.detectable, spread, image_spread, [200]) == {200: 6}
    assert seeds_needed(0.001, spread, image_spread, [200]) == {200: None}


@pytest.mark.parametrize("few", [1, 2])
def test_fewer_than_three_seeds_are_refused(few: int) -> None:
    baseline, candidate = arms(0)
    with pytest.raises(UserError, match=f"candidate arm has {few} seed"):
        compare_arms(baseline, candidate[:few])


def test_other_images_on_each_side_are_refused() -> None:
    baseline, candidate = arms(0)
    with pytest.raises(UserError, match="200 and 199 images"):
        compare_arms(baseline, candidate[:, 1:])
