"""The gate: a real drop is caught, noise is not, and what nobody can know is called inconclusive."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from robustbench_twicing.errors import EXIT_INCONCLUSIVE, EXIT_OK, EXIT_REGRESSED, UserError
from robustbench_twicing.results.gate import GateResult, check
from robustbench_twicing.spec.policy import Policy
from tests.records_builder import cell, records, with_flips

N = 600


def _both(lost: int, gained: int, n: int = N) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Records of a baseline with 80 % right, and of a run that loses and gains so many samples."""
    before, after = with_flips(n, right=n * 4 // 5, lost=lost, gained=gained)
    return cell("deit-tw", "clean", before), cell("deit-tw", "clean", after, weights_hash="tonight's weights")


def _check(lost: int, gained: int, n: int = N, **policy: Any) -> GateResult:
    baseline, run = _both(lost, gained, n)
    return check(run, baseline, Policy(**policy))


def test_a_significant_drop_beyond_the_tolerance_is_regressed() -> None:
    result = _check(lost=40, gained=5)
    assert (result.verdict, result.exit_code) == ("regressed", EXIT_REGRESSED)
    assert "lost 40, gained 5 of 600" in result.cells[0].reason
    assert "-5.8 points" in result.cells[0].reason


def test_the_same_predictions_pass() -> None:
    result = _check(lost=0, gained=0)
    assert (result.verdict, result.exit_code) == ("pass", EXIT_OK)


def test_a_gain_passes() -> None:
    assert _check(lost=5, gained=40).verdict == "pass"


def test_a_significant_drop_within_the_tolerance_passes_and_is_mentioned() -> None:
    result = _check(lost=20, gained=2, tolerance=0.06)
    assert result.verdict == "pass"
    assert "significant but within the tolerance" in result.cells[0].reason


def test_a_drop_that_noise_could_have_made_is_inconclusive_and_says_what_it_needs() -> None:
    result = _check(lost=12, gained=10)
    assert (result.verdict, result.exit_code) == ("inconclusive", EXIT_INCONCLUSIVE)
    assert "cannot be ruled out" in result.cells[0].reason
    assert "more images" in result.cells[0].reason


def test_too_few_samples_never_pass() -> None:
    """Twenty samples without a single flip still allow a drop of one point."""
    assert _check(lost=0, gained=0, n=20).verdict == "inconclusive"
    assert _check(lost=0, gained=0, n=20, tolerances={"*:clean": 0.2}).verdict == "pass"


@pytest.mark.parametrize("flips", [0, 4])
def test_the_number_of_images_asked_for_is_what_it_takes(flips: int) -> None:
    reason = _check(lost=flips, gained=flips, n=200).cells[0].reason
    more = int(reason.partition("needs about ")[2].partition(" ")[0].replace(",", ""))
    scale = 1 + 1.1 * more / 200  # "about": a tenth on top
    assert _check(round(flips * scale), round(flips * scale), n=round(200 * scale)).verdict == "pass"
    assert _check(round(flips * scale / 2), round(flips * scale / 2), n=round(100 * scale)).verdict == "inconclusive"


def test_no_number_of_images_is_asked_for_if_more_of_the_same_would_not_help() -> None:
    assert "needs" not in _check(lost=6, gained=4, n=200).cells[0].reason


def test_a_floor_holds_whatever_the_baseline_was() -> None:
    result = _check(lost=0, gained=0, floors={"deit-tw:*": 0.85})
    assert result.verdict == "regressed"
    assert "80.0 % is below its floor of 85.0 %" in result.cells[0].reason
    assert _check(lost=0, gained=0, floors={"deit-tw:*": 0.85, "*:clean": 0.5}).verdict == "pass"


def test_a_pattern_that_fits_nothing_is_a_mistake() -> None:
    with pytest.raises(UserError, match="deit-wt:clean") as caught:
        _check(0, 0, floors={"deit-wt:clean": 0.9})
    assert "deit-tw:clean" in caught.value.hint


def test_new_cells_are_named_and_only_their_floors_are_judged() -> None:
    baseline, run = _both(0, 0)
    more = pd.concat([run, cell("deit-tw", "fgsm-linf-1/255", np.zeros(N, dtype=bool))])
    result = check(more, baseline, Policy())
    assert (result.verdict, result.new) == ("pass", ("deit-tw:fgsm-linf-1/255",))
    floored = check(more, baseline, Policy(floors={"*:fgsm-*": 0.1}))
    assert floored.verdict == "regressed"
    assert floored.cells[-1].reason == "accuracy 0.0 % is below its floor of 10.0 %"


def test_a_vanished_cell_is_named_and_never_passes() -> None:
    baseline, run = _both(0, 0)
    more = pd.concat([baseline, cell("deit-tw", "fgsm-linf-1/255", np.zeros(N, dtype=bool))])
    result = check(run, more, Policy())
    assert (result.verdict, result.vanished) == ("inconclusive", ("deit-tw:fgsm-linf-1/255",))


def test_samples_that_fail_tonight_are_not_let_through() -> None:
    baseline, run = _both(0, 0)
    run.loc[:5, ["status", "error", "correct"]] = ["failed", "the model's logits are not finite", False]
    result = check(run, baseline, Policy())
    assert result.verdict == "inconclusive"
    assert "6 sample(s) failed" in result.cells[0].reason
    assert "not finite" in result.cells[0].reason


def test_a_run_on_fewer_samples_is_compared_on_those_and_says_so() -> None:
    baseline, run = _both(0, 0)
    result = check(run[:400], baseline, Policy())
    assert result.verdict == "pass"
    assert "of 400, 200 of the baseline's samples are missing" in result.cells[0].reason


def test_a_cell_without_any_answer_is_inconclusive() -> None:
    baseline, run = _both(0, 0)
    result = check(run.assign(status="failed", error="broken"), baseline, Policy())
    assert result.verdict == "inconclusive"
    assert result.cells[0].outcome is None


def test_cells_that_were_not_run_alike_are_refused_together() -> None:
    baseline = records({("deit", threat): np.ones(9, dtype=bool) for threat in ("clean", "fgsm-linf-1/255")})
    run = baseline.assign(seed=1)
    with pytest.raises(UserError, match="2 cell") as caught:
        check(run, baseline, Policy())
    for word in ("clean:", "fgsm-linf-1/255:", "seed: 0 | 1"):
        assert word in caught.value.message


def test_nothing_in_common_is_a_mistake() -> None:
    baseline, run = _both(0, 0)
    with pytest.raises(UserError, match="share no cell"):
        check(run.assign(model="other"), baseline, Policy())


# --- the rates that the gate promises ---------------------------------------------------------------------------------


def _most(repetitions: int, rate: float) -> int:
    """Events of probability `rate` exceed this number in one of a thousand such series."""
    return int(binom.ppf(0.999, repetitions, rate))


def _nights(repetitions: int, flip: float, drop: float, threats: int) -> list[str]:
    """Verdicts of nights on which a sample flips with probability `flip`, with a true drop of `drop`."""
    generator = np.random.default_rng(20261123)
    names = ["clean", "fgsm-linf-1/255", "pgd-linf-1/255"][:threats]
    right = np.arange(N) < N // 2
    baseline = records({("deit", name): right for name in names})
    verdicts = []
    for _ in range(repetitions):
        # Half of the samples can be lost, half gained: the expected drop is half the difference of the two rates.
        lost, gained = (generator.random((threats, N)) < rate for rate in (flip + drop, flip - drop))
        after = np.where(right, ~lost, gained)
        verdicts.append(check(baseline.assign(correct=after.ravel()), baseline, Policy()).verdict)
    return verdicts


def test_a_night_without_a_true_difference_is_rarely_called_regressed() -> None:
    regressed = _nights(200, flip=0.06, drop=0.0, threats=2).count("regressed")
    print(f"no-op: {regressed} of 200 called regressed, the stated rate allows {_most(200, 0.05)}")
    assert regressed <= _most(200, 0.05)


def test_a_drop_as_large_as_the_tolerance_is_rarely_let_through() -> None:
    passed = _nights(60, flip=0.02, drop=0.01, threats=1).count("pass")
    print(f"drop of one point: {passed} of 60 let through, the stated rate allows {_most(60, 0.05)}")
    assert passed <= _most(60, 0.05)


def test_a_large_drop_is_caught() -> None:
    # 600 samples lose 33 and gain 3 on average; summed over both binomials, a night is missed with probability 1.4e-4.
    assert set(_nights(20, flip=0.06, drop=0.05, threats=1)) == {"regressed"}
