"""A verdict that hangs on samples that failed is none."""

import numpy as np
import pandas as pd
import pytest

from robustbench_twicing.report.arms import arms_page
from robustbench_twicing.report.compare import compare_page
from robustbench_twicing.results.arm_comparison import ArmComparisons, compare_all
from robustbench_twicing.results.arms import arms_of
from robustbench_twicing.results.cells import by_cell
from robustbench_twicing.results.comparison import Comparisons, compare_sides
from tests.records_builder import cell, side, with_flips
from tests.report.shown import parsed, printed

N = 400


def _models(failed: int, status: str = "failed") -> Comparisons:
    """15 gained, 2 lost: better by its p of 0.002. `failed` of the samples that both have right fail for deit-tw."""
    before, after = with_flips(N, right=300, lost=2, gained=15)
    states = np.where((np.arange(N) >= 100) & (np.arange(N) < 100 + failed), status, "ok")
    frame = pd.concat([cell("deit", "clean", before), cell("deit-tw", "clean", after, status=states)])
    return compare_sides([(side(frame, "deit"), side(frame, "deit-tw"))])


def _arms(failed: int, status: str = "failed") -> ArmComparisons:
    """Four seeds each, the second arm about four points better; `failed` samples fail for one of its seeds."""
    parts = []
    for name, wrong in (("deit", 60), ("deit-tw", 44)):
        for seed in range(4):
            states = np.where((name == "deit-tw") & (seed == 3) & (np.arange(N) >= N - failed), status, "ok")
            parts.append(cell(f"{name}@s{seed}", "clean", np.arange(N) >= wrong + seed, status=states))
    return compare_all(arms_of(by_cell(pd.concat(parts)), {"deit": ["deit@*"], "deit-tw": ["deit-tw@*"]}))


@pytest.mark.parametrize("compare", [_models, _arms])
def test_without_failures_and_with_few_it_is_better(compare) -> None:
    assert [row.verdict if compare is _arms else row.outcome.verdict for row in compare(0).rows] == ["better"]
    assert [row.verdict if compare is _arms else row.outcome.verdict for row in compare(2).rows] == ["better"]


@pytest.mark.parametrize("compare", [_models, _arms])
def test_what_failures_could_turn_is_undecided_and_says_how_many(compare) -> None:
    found = compare(120)
    page = arms_page(found) if compare is _arms else compare_page(found)
    assert "undecided: 120 failed" in " ".join(printed(page, 300).split())
    assert [row["verdict"] for row in parsed(page)["rows"]] == ["undecided"]


@pytest.mark.parametrize("compare", [_models, _arms])
def test_what_was_skipped_on_purpose_turns_nothing(compare) -> None:
    found = compare(120, "skipped")
    assert [row.verdict if compare is _arms else row.outcome.verdict for row in found.rows] == ["better"]


def test_an_equal_share_of_failures_may_make_a_difference_out_of_none() -> None:
    """None is found among the answered; counted against the candidate the failures are a loss."""
    before, after = with_flips(N, right=300, lost=4, gained=5)
    states = np.where((np.arange(N) >= 100) & (np.arange(N) < 140), "failed", "ok")
    frame = pd.concat([cell("deit", "clean", before), cell("deit-tw", "clean", after, status=states)])
    (row,) = compare_sides([(side(frame, "deit"), side(frame, "deit-tw"))]).rows
    assert row.outcome.verdict == "undecided"
