"""Which rows of a comparison are hypotheses of their own, and what becomes of the others."""

import json
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pytest

from robustbench_twicing.catalog.resolve import resolve
from robustbench_twicing.catalog.suites import suite_definition
from robustbench_twicing.metrics.paired import Flips
from robustbench_twicing.metrics.verdict import compare_alone
from robustbench_twicing.report.compare import compare_page
from robustbench_twicing.report.formats.json import write
from robustbench_twicing.results.cells import by_cell, of_model
from robustbench_twicing.results.comparison import Comparisons, compare_sides
from robustbench_twicing.results.family import Outside, outside_family
from robustbench_twicing.results.side import Side
from robustbench_twicing.spec.experiment import AttackRow, Experiment
from robustbench_twicing.spec.threats import CleanThreat, ShiftThreat, Threat
from tests.records_builder import cell, with_flips


def _threats(attacks: Sequence[str], eps: Sequence[str] = ("4/255",), worst_case: bool = False) -> list[Threat]:
    row = AttackRow(names=tuple(attacks), eps=tuple(eps))
    return list(resolve(Experiment(models=("deit",), attacks=(row,), worst_case=worst_case)).threats)


def _outside(threats: Sequence[Threat], but: Sequence[str] = ()) -> dict[str, Outside]:
    known = {threat.id: threat for threat in threats}
    suites = {name: suite_definition(name) for name in ("imagenet-a", "imagenet-sketch")}
    return outside_family([name for name in known if name not in but], known, suites)


def _compared(outcomes: Mapping[Threat, tuple[np.ndarray, np.ndarray]]) -> Comparisons:
    sides = []
    for number, model in enumerate(("deit", "deit-tw")):
        cells = [cell(model, threat.id, pair[number]).assign(**threat.columns()) for threat, pair in outcomes.items()]
        sides.append(
            Side(model, of_model(by_cell(pd.concat(cells)), model), {}, {threat.id: threat for threat in outcomes})
        )
    return compare_sides([(sides[0], sides[1])])


def test_a_worst_case_follows_from_its_members_at_its_own_eps() -> None:
    found = _outside(_threats(["fgsm", "pgd"], ["1/255", "4/255"], worst_case=True))
    assert found == {
        f"worst-case-linf-{eps}": Outside("derived", (f"fgsm-linf-{eps}", f"pgd-linf-{eps}"))
        for eps in ("1/255", "4/255")
    }


def test_a_sequence_is_a_hypothesis_where_a_member_has_no_row() -> None:
    threats = _threats(["fgsm", "pgd"], worst_case=True)
    assert _outside(threats, but=["pgd-linf-4/255"]) == {}
    assert _outside(_threats(["autoattack"])) == {}


def test_a_worst_case_over_autoattack_follows_from_autoattack_and_the_rest() -> None:
    found = _outside(_threats(["autoattack", "fgsm"], worst_case=True))
    (only,) = found.items()
    assert only[0] == "worst-case-linf-4/255"
    assert set(only[1].follows_from) == {"fgsm-linf-4/255", "autoattack-linf-4/255"}


def test_of_two_sequences_of_the_same_attacks_one_is_a_hypothesis() -> None:
    assert list(_outside(_threats(["autoattack"], worst_case=True))) == ["worst-case-linf-4/255"]


def test_a_member_with_other_settings_is_another_attack() -> None:
    one, *rest = _threats(["fgsm", "pgd"], worst_case=True)[1:]
    others = [one.model_copy(update={"precision": "bfloat16"}), *rest]
    assert _outside(others) == {}


def test_an_eps_of_zero_repeats_the_clean_run() -> None:
    threats = _threats(["fgsm", "pgd"], ["0", "4/255"])
    repeated = Outside("derived", ("clean",))
    assert _outside(threats) == {"fgsm-linf-0": repeated, "pgd-linf-0": repeated}
    assert _outside(threats[1:]) == {"pgd-linf-0": Outside("derived", ("fgsm-linf-0",))}


def test_a_clean_run_on_all_classes_repeats_the_clean_run_and_one_on_some_does_not() -> None:
    threats = [*(CleanThreat(classes_of=name) for name in ("imagenet-a", "imagenet-sketch")), CleanThreat()]
    assert _outside(threats) == {"clean[imagenet-sketch]": Outside("derived", ("clean",))}
    assert _outside([ShiftThreat(suite="imagenet-sketch"), CleanThreat()]) == {}


def test_a_noise_control_is_outside_and_still_a_part_of_the_worst_case() -> None:
    found = _outside(_threats(["noise", "fgsm"], worst_case=True))
    assert found["noise-linf-4/255"] == Outside("control")
    assert found["worst-case-linf-4/255"].why == "derived"


def test_rows_outside_the_family_take_no_verdict_away() -> None:
    """Three attacks of p 0.022 each fail among themselves; one of p 0.0063 passes in a family of seven, not of ten."""
    threats = _threats(["fgsm", "pgd", "noise"], ["1/255", "2/255", "4/255"], worst_case=True)
    clear, still = with_flips(60, right=40, lost=1, gained=11), with_flips(60, right=40, lost=0, gained=0)
    worst = [threat for threat in threats if threat.id.startswith("worst-case")]
    assert len(threats) == 13
    found = _compared({threat: clear if threat.id == "fgsm-linf-4/255" else still for threat in threats})
    rows = {row.threat: row for row in found.rows}
    assert found.family == 7
    clear_row = rows["fgsm-linf-4/255"].outcome
    assert clear_row.p == pytest.approx(0.00635, abs=1e-5)
    assert clear_row.p_holm == pytest.approx(7 * clear_row.p)
    assert clear_row.verdict == "better"
    assert all(rows[threat.id].outcome.p_holm is None for threat in worst)


def test_a_derived_row_has_the_p_and_the_verdict_of_a_single_test_and_says_so() -> None:
    threats = _threats(["fgsm", "pgd"], worst_case=True)
    lucky, still = with_flips(500, right=300, lost=2, gained=11), with_flips(500, right=300, lost=0, gained=0)
    found = _compared({threat: lucky if threat.id.startswith(("worst", "fgsm")) else still for threat in threats})
    by_threat = {row.threat: row for row in found.rows}
    assert by_threat["fgsm-linf-4/255"].outcome.verdict == "no difference found"  # 3 × 0.022
    derived = by_threat["worst-case-linf-4/255"]
    assert derived.outcome == compare_alone(Flips(298, 2, 11, 189))
    assert derived.outcome.verdict == "better"
    facts = json.loads(write(compare_page(found)))
    assert facts["family"] == 3
    assert [row["in_family"] for row in facts["rows"]] == [True, True, True, False]
    assert facts["rows"][-1]["outside"] == "derived"
    assert facts["rows"][-1]["follows_from"] == ["fgsm-linf-4/255", "pgd-linf-4/255"]


def test_a_row_that_repeats_another_has_its_verdict() -> None:
    """p 0.022 would do alone; in a family of three it does not, for clean as for its repetitions at eps 0."""
    threats = _threats(["fgsm", "pgd"], ["0", "4/255"])
    lucky, still = with_flips(500, right=300, lost=2, gained=11), with_flips(500, right=300, lost=0, gained=0)
    found = _compared({threat: still if threat.id.endswith("4/255") else lucky for threat in threats})
    outcomes = {row.threat: row.outcome for row in found.rows}
    assert outcomes["clean"].verdict == "no difference found"
    assert outcomes["fgsm-linf-0"] == outcomes["pgd-linf-0"] == outcomes["clean"]
    assert found.family == 3


def test_a_comparison_of_nothing_but_controls_still_says_what_was_found() -> None:
    threats = _threats(["noise"])[1:]
    found = _compared(dict.fromkeys(threats, with_flips(60, right=40, lost=1, gained=11)))
    assert found.family == 0
    assert found.rows[0].outcome.verdict == "better"
