"""The gate's verdict for people, for CI systems and for CI pages."""

import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest

from robustbench_twicing.errors import UserError
from robustbench_twicing.report.gate import Sides, gate_page, headline
from robustbench_twicing.report.page import Page
from robustbench_twicing.results.baselines import Acceptance
from robustbench_twicing.results.cells import by_cell
from robustbench_twicing.results.gate import GateResult, check
from robustbench_twicing.spec.policy import Policy
from tests.records_builder import cell, with_flips
from tests.report.shown import parsed, printed, written

ACCEPTED = Acceptance(
    who="ada",
    when="2026-11-20T02:00:00+00:00",
    why="first | night <b>",
    run="results/runs/x",
    run_started="2026-11-19T20:00:00+00:00",
    weights={},
)


def _result() -> GateResult:
    """One cell regressed, one inconclusive, one passed, one new, one vanished."""
    broken, noisy = with_flips(600, 480, 60, 3), with_flips(600, 480, 12, 10)
    same = with_flips(600, 480, 0, 0)
    cells = {"clean": same, "fgsm-linf-1/255": noisy, "pgd-linf-1/255": broken}
    frames = [
        pd.concat([cell("deit", threat, pair[side]) for threat, pair in cells.items()], ignore_index=True)
        for side in (0, 1)
    ]
    baseline = pd.concat([frames[0], cell("deit", "old", same[0])])
    now = pd.concat([frames[1], cell("deit\x00<>", "new", same[0])])
    return check(by_cell(now), by_cell(baseline), Policy())


def _page(result: GateResult, run: str = "results/runs/tonight") -> Page:
    return gate_page(result, Sides(run, "results/baselines/nightly", ACCEPTED))


def test_the_headline_counts_every_verdict() -> None:
    assert headline(_result()) == "REGRESSED: 1 regressed, 1 inconclusive, 1 passed, 1 new, 1 vanished"


def test_the_terminal_shows_the_worst_first_with_reasons_and_strangers() -> None:
    text = printed(_page(_result()))
    assert text.index("pgd-linf-1/255") < text.index("fgsm-linf-1/255") < text.index("clean")
    for words in ("lost 60, gained 3 of 600", "cannot be ruled out", "Vanished", "deit:old", "New", "accepted by ada"):
        assert words in text


def test_junit_has_a_case_for_each_cell_and_counts_what_is_not_a_pass() -> None:
    suite = ET.fromstring(written(_page(_result(), "night \x01"), "junit").encode()).find("testsuite")
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("4", "1", "2")
    failure = suite.find("testcase[@name='pgd-linf-1/255']/failure")
    assert failure is not None
    assert failure.get("type") == "regressed"
    assert "lost 60" in str(failure.get("message"))
    assert suite.find("testcase[@name='old']/error") is not None
    assert suite.find("testcase[@name='clean']/failure") is None


def test_markdown_cannot_be_broken_by_what_people_write() -> None:
    text = written(_page(_result()), "markdown")
    assert text.startswith("## REGRESSED: 1 regressed")
    assert "first \\| night &lt;b>" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert {line.replace("\\|", "").count("|") for line in rows} == {8}
    assert "<details><summary>1 cell(s) passed</summary>" in text


def test_a_pass_is_short() -> None:
    same = cell("deit", "clean", np.ones(600, dtype=bool))
    text = written(_page(check(by_cell(same), by_cell(same), Policy())), "markdown")
    assert text.startswith("## PASS: 1 passed")
    assert "regressed" not in text


def test_a_page_that_judges_nothing_is_no_junit() -> None:
    with pytest.raises(UserError, match="Nothing is judged"):
        written(Page("a title", ()), "junit")


def test_the_machine_form_holds_every_verdict_with_its_numbers() -> None:
    baseline, run = (cell("deit", "clean", side) for side in with_flips(600, 480, 40, 5))
    found = parsed(_page(check(by_cell(run), by_cell(baseline), Policy())))
    assert (found["verdict"], found["exit_code"]) == ("regressed", 3)
    assert found["cells"][0]["lost"] == 40
    assert found["cells"][0]["interval"][1] < 0
    assert found["policy"]["tolerance"] == 0.01
    assert found["accepted"]["who"] == "ada"
