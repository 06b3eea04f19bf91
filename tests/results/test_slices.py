"""Where two models differ: a planted slice is found, and nothing is where there is no difference."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import false_discovery_control

from robustbench_twicing.metrics.paired import Bounds, Flips, LeftOut, Pairs
from robustbench_twicing.metrics.verdict import benjamini_hochberg
from robustbench_twicing.report.compare import compare_page
from robustbench_twicing.results.comparison import compare_sides
from robustbench_twicing.results.slices import Outcomes, find_slices
from tests.records_builder import records, side
from tests.report.shown import parsed, printed

NONE, NOBODY = Flips(0, 0, 0, 0), LeftOut(0, 0, 0)
ATTACKS = ("pgd-linf-1/255", "pgd-linf-4/255")
FOGS = tuple(f"digits-c:fog-{severity}" for severity in (1, 3, 5))
IMAGES = 400


def _drawn(seed: int) -> dict[tuple[str, str], np.ndarray]:
    """Two models that do not differ; what makes an image hard is common to both and to all threats."""
    draw = np.random.default_rng(seed)
    ease = draw.normal(0.7, 1, IMAGES)
    threats = ("clean", *ATTACKS, *FOGS)
    own = {model: draw.normal(0, 0.5, IMAGES) for model in ("deit", "deit-tw")}
    return {(m, t): ease + own[m] + draw.normal(0, 0.5, IMAGES) > 0 for m in own for t in threats}


def _sides(outcomes: dict[tuple[str, str], np.ndarray], **columns: Any) -> Any:
    frame = records(outcomes, **columns)
    return side(frame, "deit"), side(frame, "deit-tw")


THREATS = _sides(_drawn(0))[0].threats


def _outcomes(drawn: dict[tuple[str, str], np.ndarray], margins: np.ndarray) -> Outcomes:
    ids, labels = np.arange(IMAGES).astype(str).astype(object), np.arange(IMAGES) % 10
    bounds = Bounds(NONE, NONE)
    pairs = {
        threat: Pairs(ids, labels, drawn["deit", threat], drawn["deit-tw", threat], NOBODY, NOBODY, bounds)
        for threat in THREATS
    }
    return Outcomes("deit", "deit-tw", pairs, THREATS, pd.Series(margins, ids))


def test_where_nothing_differs_something_is_found_in_alpha_of_cases_at_most() -> None:
    alpha, repetitions, wrong, asked = 0.05, 200, 0, 0
    for seed in range(repetitions):
        margins = np.random.default_rng((seed, 1)).normal(size=IMAGES)
        slices = find_slices([_outcomes(_drawn(seed), margins)], alpha)
        wrong += len(slices.found) > 0
        asked += slices.asked
    print(f"something is found in {wrong / repetitions:.1%} of {repetitions}; {asked / repetitions:.0f} slices each")
    assert asked > 20 * repetitions
    assert wrong / repetitions <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / repetitions)


def test_a_planted_class_and_severity_and_margin_are_found_and_said() -> None:
    drawn, labels = _drawn(1), np.arange(IMAGES) % 10
    margins = np.random.default_rng(2).permutation(IMAGES) / 100
    for threat in ATTACKS:
        drawn["deit", threat] = drawn["deit", threat] | (labels == 3)
        drawn["deit-tw", threat] = drawn["deit-tw", threat] & (labels != 3)
    drawn["deit-tw", FOGS[2]] = drawn["deit-tw", FOGS[2]] | (labels < 5)
    drawn["deit-tw", "clean"] = drawn["deit-tw", "clean"] | (margins < 1)
    found = compare_sides([_sides(drawn, margin=margins)])
    best = {(one.of, one.by, one.value): one.verdict for one in found.slices.found}
    assert best["pgd-linf", "class", "3"] == "worse"
    assert best["digits-c", "severity", "5"] == "better"
    assert best["clean", "margin", "smallest quarter"] == "better"
    assert [key for key in best if key[:2] == ("pgd-linf", "class")] == [("pgd-linf", "class", "3")]
    text = " ".join(printed(compare_page(found, slices=True)).split())
    assert "class: 3" in text
    assert f"{len(best)} of {found.slices.asked} stand out" in text
    assert "class: 3" not in printed(compare_page(found))
    assert "slices" not in parsed(compare_page(found))
    facts = parsed(compare_page(found, slices=True))["slices"]
    assert (facts["asked"], len(facts["found"])) == (found.slices.asked, len(best))


def test_an_image_counts_once_however_many_threats_it_flips_under() -> None:
    wrong, right = np.zeros(IMAGES, dtype=bool), np.arange(IMAGES) < 6
    outcomes = {(m, t): right if m == "deit-tw" else wrong for m in ("deit", "deit-tw") for t in FOGS}
    found = compare_sides([_sides(outcomes)]).slices.found
    assert {(one.lost, one.gained) for one in found if one.by == "severity"} == {(0, 6)}


def test_samples_that_only_some_threats_have_are_added_up_by_their_ids() -> None:
    each = _outcomes(_drawn(3), np.zeros(IMAGES))
    order = np.random.default_rng(0).permutation(IMAGES)

    def reordered(pairs: Pairs) -> Pairs:
        arrays = (pairs.sample_ids, pairs.labels, pairs.baseline, pairs.candidate)
        return Pairs(*(array[order] for array in arrays), NOBODY, NOBODY, pairs.bounds)

    other = each._replace(pairs={**each.pairs, ATTACKS[0]: reordered(each.pairs[ATTACKS[0]])})
    assert find_slices([other], 1.0) == find_slices([each], 1.0)


@pytest.mark.parametrize("size", [0, 1, 40])
def test_the_correction_is_scipys(size: int) -> None:
    p = np.random.default_rng(size).beta(0.5, 1, size)
    expected = false_discovery_control(p) if size else p
    assert benjamini_hochberg(p) == pytest.approx(expected)
