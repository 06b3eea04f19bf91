"""Mechanisms over whole curves and suites, seed by seed and image by image."""

from itertools import product

import numpy as np
import pandas as pd
import pytest

from robustbench_twicing.catalog.suites import suite_definition
from robustbench_twicing.metrics.accuracy import curve_area
from robustbench_twicing.metrics.arms import compare_arms
from robustbench_twicing.metrics.corruption_error import errors_by_cell, mce
from robustbench_twicing.report.arms import arms_page
from robustbench_twicing.results.arm_comparison import compare_all
from robustbench_twicing.results.arm_figures import compare_figures
from robustbench_twicing.results.arms import Arm, arms_of
from robustbench_twicing.results.cells import by_cell
from tests.records_builder import cell
from tests.report.shown import parsed, printed

PATTERNS = {"deit": ["deit@*"], "deit-tw": ["deit-tw@*"]}
SEEDS, N = 3, 40
SUITE = suite_definition("imagenet-c")
CELLS = SUITE.spec.parts(SUITE.spec.common)


def _answers(threats: int) -> np.ndarray:
    """(arm, seed, image, threat)."""
    generator = np.random.default_rng(5)
    ease = generator.normal(1, 1, (1, 1, N, 1)) - 0.2 * np.arange(threats) / threats
    return ease + np.array([0.0, 0.2])[:, None, None, None] + generator.normal(size=(2, SEEDS, N, threats)) > 0


def _arms(answers: np.ndarray, threats: list[str]) -> list[Arm]:
    frames = [
        cell(f"{name}@s{seed}", threat, answers[arm, seed, :, number])
        for (arm, name), seed, (number, threat) in product(enumerate(PATTERNS), range(SEEDS), enumerate(threats))
    ]
    return arms_of(by_cell(pd.concat(frames, ignore_index=True)), PATTERNS)


def test_the_area_under_a_curve_is_compared_by_seeds_and_images() -> None:
    answers = _answers(3)
    arms = _arms(answers, ["clean", "pgd-linf-1/255", "pgd-linf-4/255"])
    (figure,) = compare_figures(arms, {})
    eps = np.array([0, 1, 4]) / 255
    areas = [np.array([curve_area(eps, seed.astype(float)) for seed in arm]) for arm in answers]
    assert (figure.over, figure.figure, figure.n) == ("pgd-linf", "area", N)
    expected = compare_arms(*areas)
    assert (figure.outcome.difference, figure.outcome.p) == pytest.approx((expected.difference, expected.p))
    assert list(figure.candidate_values.values()) == pytest.approx(areas[1].mean(axis=1))


def test_mean_error_and_mce_of_a_suite_are_those_of_each_seed() -> None:
    answers = _answers(len(CELLS))
    arms = _arms(answers, [f"imagenet-c:{name}-{severity}" for name, severity in CELLS])
    found = {figure.figure: figure for figure in compare_figures(arms, {"imagenet-c": SUITE})}
    assert set(found) == {"mean error", "mCE"}  # the relative one needs a clean run
    assert found["mean error"].outcome.difference == pytest.approx(-(answers[1].mean() - answers[0].mean()))
    of_one = mce(
        errors_by_cell(answers[0, 0], CELLS), SUITE.denominator.by_cell, SUITE.spec.families, SUITE.spec.severities
    )
    assert found["mCE"].baseline_values["deit@s0"] == pytest.approx(of_one.mean())


def test_the_page_and_the_json_have_them_with_every_seed() -> None:
    arms = _arms(_answers(2), ["clean", "pgd-linf-1/255"])
    found = compare_all(arms)
    page = arms_page(type(found)(**{**vars(found), "figures": tuple(compare_figures(arms, {}))}))
    assert "Whole curves and suites" in printed(page)
    (row,) = parsed(page)["figures"]
    assert set(row["baseline_values"]) == {"deit@s0", "deit@s1", "deit@s2"}


def test_a_threat_that_one_seed_lacks_makes_no_curve() -> None:
    arms = _arms(_answers(2), ["clean", "pgd-linf-1/255"])
    short = arms[1].cells | {"pgd-linf-1/255": dict(list(arms[1].cells["pgd-linf-1/255"].items())[1:])}
    other = type(arms[1])(**{**vars(arms[1]), "cells": short})
    assert list(compare_figures([arms[0], other], {})) == []
