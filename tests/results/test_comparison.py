"""What `compare` says: who is compared with whom, on which samples, and the figures over curves and suites."""

from functools import cache
from itertools import product

import numpy as np
import pandas as pd
import pytest

from robustbench_twicing.catalog.denominators import denominator
from robustbench_twicing.catalog.suites import suite
from robustbench_twicing.errors import UserError
from robustbench_twicing.results.comparison import compare_sides
from robustbench_twicing.results.side import Side
from tests.oracles.statistics import delong_difference
from tests.records_builder import cell, records, side, threat_columns, with_flips

MODELS = ("deit", "deit-tw")
COMMON, SEVERITIES = suite("imagenet-c").common, suite("imagenet-c").severities


def _sides(frame: pd.DataFrame, baseline: str = "deit", candidate: str = "deit-tw") -> list[tuple[Side, Side]]:
    return [(side(frame, baseline), side(frame, candidate))]


def test_a_clear_gain_is_better_and_counts_the_flips_each_way() -> None:
    before, after = with_flips(500, right=300, lost=10, gained=60)
    frame = records({("deit", "clean"): before, ("deit-tw", "clean"): after})
    (row,) = compare_sides(_sides(frame)).rows
    assert row.outcome.verdict == "better"
    assert (row.outcome.flips.lost, row.outcome.flips.gained) == (10, 60)
    assert (row.baseline_accuracy, row.candidate_accuracy) == (0.6, 0.7)
    assert row.outcome.difference == pytest.approx(0.1)


def test_the_same_numbers_the_other_way_round_are_worse() -> None:
    before, after = with_flips(500, right=300, lost=10, gained=60)
    frame = records({("deit", "clean"): before, ("deit-tw", "clean"): after})
    (row,) = compare_sides(_sides(frame, "deit-tw", "deit")).rows
    assert row.outcome.verdict == "worse"
    assert row.outcome.difference == pytest.approx(-0.1)


def test_a_small_difference_says_what_would_have_shown() -> None:
    before, after = with_flips(200, right=100, lost=5, gained=9)
    frame = records({("deit", "clean"): before, ("deit-tw", "clean"): after})
    (row,) = compare_sides(_sides(frame)).rows
    assert row.outcome.verdict == "no difference found"
    assert row.outcome.detectable_difference is not None
    assert row.outcome.detectable_difference > row.outcome.difference


def test_all_hypotheses_are_one_family() -> None:
    """One cell of p 0.03 among nine without flips: alone it would pass, in a family of ten it must not."""
    lucky = with_flips(500, right=300, lost=2, gained=11)  # exact p = 2 P(Binomial(13, 1/2) <= 2) = 0.022
    still = with_flips(500, right=300, lost=0, gained=0)
    threats = {f"pgd-linf-{eps}/255": lucky if eps == 1 else still for eps in range(1, 11)}
    frame = records(
        {
            (model, threat): pair[side]
            for side, model in enumerate(("deit", "deit-tw"))
            for threat, pair in threats.items()
        }
    )
    rows = compare_sides(_sides(frame)).rows
    assert rows[0].outcome.p == pytest.approx(0.0225, abs=1e-4)
    assert rows[0].outcome.p_holm == pytest.approx(10 * rows[0].outcome.p)
    assert {row.outcome.verdict for row in rows} == {"no difference found"}


def test_failed_samples_count_on_neither_side_and_are_reported() -> None:
    before, after = with_flips(100, right=60, lost=0, gained=20)
    status = np.where(np.arange(100) < 7, "failed", "ok")
    frame = pd.concat([cell("deit", "clean", before), cell("deit-tw", "clean", after, status=status)])
    (row,) = compare_sides(_sides(frame)).rows
    assert row.outcome.flips.n == 93
    assert row.pairs.candidate_left_out.failed == 7


@pytest.mark.parametrize(
    ("column", "value"),
    [("protocol_hash", "another"), ("recipe", "crop224"), ("data_fingerprint", "another"), ("seed", 1)],
)
def test_rows_that_were_not_run_alike_are_refused_by_threat_and_field(column: str, value: object) -> None:
    right = np.ones(20, dtype=bool)
    frame = pd.concat([cell("deit", "clean", right), cell("deit-tw", "clean", right, **{column: value})])
    with pytest.raises(UserError, match=rf"(?s)clean: .*{column}"):
        compare_sides(_sides(frame))


def test_threats_of_one_side_only_are_named() -> None:
    right = np.ones(20, dtype=bool)
    frame = records({("deit", "clean"): right, ("deit", "fgsm-linf-1/255"): right, ("deit-tw", "clean"): right})
    assert compare_sides(_sides(frame)).not_compared == ("deit only: fgsm-linf-1/255",)


def test_no_shared_threat_is_a_mistake_that_names_both() -> None:
    right = np.ones(20, dtype=bool)
    frame = records({("deit", "clean"): right, ("deit-tw", "fgsm-linf-1/255"): right})
    with pytest.raises(UserError, match="share no threat") as caught:
        compare_sides(_sides(frame))
    assert "deit-tw only: fgsm-linf-1/255" in caught.value.hint


def test_flipped_samples_are_those_that_changed_sides() -> None:
    before, after = with_flips(50, right=30, lost=2, gained=3)
    frame = records({("deit", "clean"): before, ("deit-tw", "clean"): after})
    flips = compare_sides(_sides(frame)).rows[0].changed
    assert list(flips["sample_id"]) == ["test-00000", "test-00001", "test-00030", "test-00031", "test-00032"]
    assert list(flips["change"]) == ["lost", "lost", "gained", "gained", "gained"]
    assert (flips["candidate_prediction"][2:] == flips["label"][2:]).all()
    assert (flips["candidate_prediction"][:2] != flips["label"][:2]).all()


# --- curves ----------------------------------------------------------------------------------------------------------


def test_a_curve_starts_at_clean_and_is_sorted_by_eps() -> None:
    n = 100
    shares = {"clean": 100, "pgd-linf-4/255": 20, "pgd-linf-1/255": 80, "pgd-linf-2/255": 60}
    frame = records(
        {(model, threat): np.arange(n) < right for model in ("deit", "deit-tw") for threat, right in shares.items()}
    )
    (curve,) = compare_sides(_sides(frame)).curves
    assert (curve.attack, curve.eps, curve.n) == ("pgd-linf", ("0", "1/255", "2/255", "4/255"), n)
    assert curve.baseline_accuracies == (1.0, 0.8, 0.6, 0.2)
    # By hand: trapezoids 0.9, 0.7 and 2 x 0.4 over a range of 4; half of 1.0 lies a quarter of the way from 2 to 4.
    assert curve.baseline_area == pytest.approx((0.9 + 0.7 + 0.8) / 4)
    assert curve.baseline_half == pytest.approx(2.5 / 255)
    assert curve.area_difference.value == 0


def test_the_area_difference_is_paired() -> None:
    """What one model gets right, the other does too, but for 10 of 400 images at one eps: the interval is narrow."""
    generator = np.random.default_rng(0)
    clean, attacked = generator.random(400) < 0.9, generator.random(400) < 0.5
    better = attacked.copy()
    better[np.flatnonzero(~attacked)[:10]] = True
    outcomes = {("deit", "clean"): clean, ("deit-tw", "clean"): clean}
    outcomes |= {("deit", "pgd-linf-1/255"): attacked, ("deit-tw", "pgd-linf-1/255"): better}
    (curve,) = compare_sides(_sides(records(outcomes))).curves
    # Two points: the area is their mean, so ten images more at one of them are 10 / 400 / 2.
    assert curve.area_difference.value == pytest.approx(0.0125)
    # Unpaired, the difference of two such areas has a standard error above 0.02; paired, 0.5 sqrt(10) / 400 = 0.004.
    low, high = curve.area_difference.interval
    assert 0 < low < high < 0.0125 + 4 * 0.004


def test_eps_zero_and_single_images_make_no_curve() -> None:
    right = np.ones(20, dtype=bool)
    outcomes = {(model, threat): right for model in ("deit", "deit-tw") for threat in ("clean", "pgd-linf-0")}
    assert compare_sides(_sides(records(outcomes))).curves == ()
    one = {(model, threat): right[:1] for model in ("deit", "deit-tw") for threat in ("clean", "pgd-linf-1/255")}
    assert compare_sides(_sides(records(one))).curves == ()


# --- suites ----------------------------------------------------------------------------------------------------------


@cache
def _suite(where: str, clean: bool = True) -> pd.DataFrame:
    """deit errs on images 0 to 59 of 100 under every corruption, deit-tw on 0 to 49; on clean, 20 and 10."""
    cells = []
    for model, wrong in (("deit", 60), ("deit-tw", 50)):
        one = cell(model, "imagenet-c:fog-1", np.arange(100) >= wrong)
        for name, severity in product(COMMON, SEVERITIES):
            threat = f"{where}:{name}-{severity}"
            cells.append(one.assign(threat=threat, **threat_columns(threat)))
        if clean:
            cells.append(cell(model, "clean", np.arange(100) >= wrong - 40))
    return pd.concat(cells, ignore_index=True)


def test_a_whole_suite_gives_mean_error_mce_and_relative_mce() -> None:
    means = {mean.figure: mean for mean in compare_sides(_sides(_suite("imagenet-c"))).suites}
    assert list(means) == ["mean error", "mCE", "relative mCE"]
    assert (means["mean error"].baseline_value, means["mean error"].candidate_value) == pytest.approx((0.6, 0.5))
    # By hand: with one error rate e everywhere, CE is 100 e / AlexNet's mean error, and relative CE likewise.
    yardstick = denominator("alexnet")
    theirs = [np.mean([yardstick.by_cell[name, severity] for severity in SEVERITIES]) for name in COMMON]
    assert means["mCE"].candidate_value == pytest.approx(np.mean([100 * 0.5 / error for error in theirs]))
    assert means["relative mCE"].baseline_value == pytest.approx(
        np.mean([100 * (0.6 - 0.2) / (error - yardstick.clean) for error in theirs])
    )
    assert means["mCE"].difference.value == pytest.approx(means["mCE"].candidate_value - means["mCE"].baseline_value)
    assert means["mCE"].difference.interval.high < 0


def test_alexnet_saw_no_digits_so_they_have_a_mean_error_only() -> None:
    assert [mean.figure for mean in compare_sides(_sides(_suite("digits-c"))).suites] == ["mean error"]


def test_without_clean_images_there_is_no_relative_mce() -> None:
    suites = compare_sides(_sides(_suite("imagenet-c", clean=False))).suites
    assert [mean.figure for mean in suites] == ["mean error", "mCE"]


def _outliers(shift: float, model: str, seed: int) -> pd.DataFrame:
    """200 outliers and 300 clean images whose confidence is lower by `shift` for outliers."""
    generator = np.random.default_rng(seed)
    draws = {"imagenet-o": (200, 0.5 - shift), "clean[imagenet-o]": (300, 0.5)}
    return pd.concat(
        [
            cell(model, name, np.zeros(n, bool), confidence=centre + 0.1 * generator.normal(size=n))
            for name, (n, centre) in draws.items()
        ]
    )


def test_a_suite_of_outliers_is_compared_by_its_own_figures_with_paired_intervals() -> None:
    frame = pd.concat([_outliers(0.02, "deit", 1), _outliers(0.1, "deit-tw", 2)])
    means = {mean.figure: mean for mean in compare_sides(_sides(frame)).suites}
    assert list(means) == ["AUROC", "AUPR", "FPR95"]
    area = means["AUROC"]
    assert (area.n, area.better, means["FPR95"].better) == (500, "higher", "lower")
    parts = frame.groupby(["model", "threat"])["confidence"].apply(lambda scores: -scores.to_numpy())
    scores = [tuple(parts[model, threat] for threat in ("imagenet-o", "clean[imagenet-o]")) for model in MODELS]
    value, low, high = delong_difference(*scores, level=0.95)
    assert area.difference.value == pytest.approx(value)
    found = area.difference.interval
    assert 0.5 < (found.high - found.low) / (high - low) < 1.6  # twenty groups know it to 16 %
    assert area.candidate_value - area.baseline_value == pytest.approx(value)


def test_an_incomplete_suite_has_no_mean() -> None:
    frame = _suite("imagenet-c")
    assert compare_sides(_sides(frame[frame["corruption"].isin(["", "fog", "snow"])])).suites == ()
