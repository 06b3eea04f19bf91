"""`--margin`: whether a difference that matters, chosen beforehand, is ruled out."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from robustbench_twicing.cli.app import app
from robustbench_twicing.errors import UserError
from robustbench_twicing.metrics.arms import compare_arms, margin_p
from robustbench_twicing.report.compare import compare_page
from robustbench_twicing.results.comparison import compare_sides
from tests.records_builder import cell, run_folder, side, with_flips
from tests.report.shown import parsed


def _said(n: int, lost: int, gained: int, margin: float, sequential: bool = False) -> str:
    before, after = with_flips(n, right=n // 2, lost=lost, gained=gained)
    frame = pd.concat([cell("deit", "clean", before), cell("deit-tw", "clean", after)])
    found = compare_sides([(side(frame, "deit"), side(frame, "deit-tw"))], margin=margin, sequential=sequential)
    (row,) = parsed(compare_page(found))["rows"]
    text: str = row["margin"]
    return text


SAID: Mapping[tuple[int, int, int], str] = {
    (10_000, 60, 60): "the same within 1",
    (10_000, 60, 160): "not worse by 1",
    (10_000, 160, 60): "not better by 1",
}


@pytest.mark.parametrize(("n", "lost", "gained"), SAID)
def test_two_one_sided_tests_say_what_is_ruled_out(n: int, lost: int, gained: int) -> None:
    assert _said(n, lost, gained, 0.01) == SAID[n, lost, gained]


def test_a_margin_that_is_not_ruled_out_says_how_many_more_images_a_difference_of_it_needs() -> None:
    assert _said(200, 9, 9, 0.01).startswith("1 either way not ruled out (a true one would show with about ")


def test_looking_again_needs_more_before_a_margin_is_ruled_out() -> None:
    assert _said(10_000, 60, 60, 0.0025) == "the same within 0.25"
    assert _said(10_000, 60, 60, 0.0025, sequential=True) == "0.25 either way not ruled out"
    assert _said(10_000, 60, 60, 0.02, sequential=True) == "the same within 2"


def test_arms_that_answer_alike_are_the_same_only_on_enough_images() -> None:
    for n, ruled_out in ((20, False), (400, True)):
        alike = np.ones((3, n))
        assert (max(margin_p(compare_arms(alike, alike), 0.01, n)) <= 0.05) == ruled_out


def test_one_margin_of_arms_is_the_end_of_an_interval() -> None:
    generator = np.random.default_rng(5)
    ease = generator.beta(4, 1, 500)
    sides = [(generator.random((5, 500)) < ease + shift).astype(float) for shift in (0.0, 0.0)]
    test = compare_arms(*sides, alpha=0.1)
    assert test.interval.low < 0 < test.interval.high
    assert margin_p(test, -test.interval.low, 500)[0] == pytest.approx(0.05)
    assert margin_p(test, test.interval.high, 500)[1] == pytest.approx(0.05)


def test_the_command_says_it_of_models_and_of_arms(tmp_path: Path) -> None:
    names = [f"{name}@s{seed}" for name in ("deit", "deit-tw") for seed in range(3)]
    run = run_folder(tmp_path / "run", pd.concat([cell(name, "clean", np.arange(60) > 3) for name in names]))
    arms = ("--arm", "a=deit@*", "--arm", "b=deit-tw@*")
    for options in (("--run", str(run), "deit@s0", "deit-tw@s0"), (str(run), *arms)):
        said = CliRunner().invoke(app, ["compare", *options, "--margin", "0.1"], catch_exceptions=False)
        assert said.exit_code == 0
        assert "the same within 10" in " ".join(said.stdout.split())


@pytest.mark.parametrize("margin", [0.0, 1.0, -0.1])
def test_what_is_no_margin_is_refused(margin: float) -> None:
    with pytest.raises(UserError, match="makes no sense"):
        _said(100, 1, 1, margin)
