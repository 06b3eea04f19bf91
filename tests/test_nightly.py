"""The nightly workflow and its plan: what the CI page shows, and that the gate can pass and can fail."""

import re
import subprocess
from itertools import takewhile
from pathlib import Path

import numpy as np
import pytest

from robustbench_twicing.catalog.passing import never_passing
from robustbench_twicing.catalog.plans import read_plan
from robustbench_twicing.metrics.drops import exceeded_p, ruled_out_p

WORKFLOW = Path(__file__).resolve().parent.parent / ".github" / "workflows" / "nightly.yml"
NIGHTS, IMAGES = 200, 597
NOISE = 0.01
"""Share of the answers that change sides by chance, half of them each way."""


def _script(step: str) -> str:
    """What the workflow runs in the step of this name."""
    text = WORKFLOW.read_text().partition(f"- name: {step}")[2].partition("run: |\n")[2]
    lines = takewhile(lambda line: line.startswith(" " * 10), text.splitlines())
    return re.sub(r"\$\{\{.*?\}\}", "7", "\n".join(lines))


def _step(step: str, folder: Path, exits: int) -> subprocess.CompletedProcess[str]:
    """The step, with a `twicing-bench` that exits so."""
    tool = folder / "twicing-bench"
    tool.write_text(f"#!/bin/sh\necho '## INCONCLUSIVE: 3 inconclusive' > gate.md\nexit {exits}\n")
    tool.chmod(0o755)
    files = {"GITHUB_OUTPUT": str(folder / "output"), "GITHUB_STEP_SUMMARY": str(folder / "summary")}
    environment = {"PATH": f"{folder}:/usr/bin:/bin", **files}
    command = ["bash", "-e", "-c", _script(step)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(("exits", "job"), [(0, 0), (2, 2), (3, 3), (4, 0)])
def test_only_an_inconclusive_gate_lets_the_job_go_on(tmp_path: Path, exits: int, job: int) -> None:
    assert _step("gate", tmp_path, exits).returncode == job
    assert f"code={exits}" in (tmp_path / "output").read_text()
    assert "INCONCLUSIVE" in (tmp_path / "summary").read_text()


def test_an_inconclusive_gate_is_red_and_a_warning_on_the_page(tmp_path: Path) -> None:
    _step("gate", tmp_path, 4)
    shown = _step("inconclusive", tmp_path, 4)
    assert shown.returncode == 1
    assert shown.stdout.startswith("::warning title=Robustness is inconclusive::## INCONCLUSIVE: 3 inconclusive")
    assert "if: steps.gate.outputs.code == '4'\n        continue-on-error: true" in WORKFLOW.read_text()


def _nights(lost: float, cells: int) -> np.ndarray:
    """Lost and gained samples of (night, cell)."""
    generator = np.random.default_rng(11)
    return generator.multinomial(IMAGES, [NOISE / 2 + lost, NOISE / 2, 1 - NOISE - lost], (NIGHTS, cells))[..., :2]


def test_nights_of_the_shipped_plan_without_a_drop_pass_and_nights_with_one_are_caught() -> None:
    """1 % of the answers flip. First nothing drops in ten cells; then one loses seven points, and one its tolerance."""
    plan = read_plan("nightly")
    cells, alpha, tolerance = len(plan.plan.cells), plan.gate.alpha, plan.gate.tolerance
    family = cells + sum(plan.gate.floor_for(c.model.name, c.threat.id) is not None for c in plan.plan.cells)
    quiet = _nights(0.0, cells)
    passed = [all(ruled_out_p(*cell, IMAGES, tolerance) <= alpha for cell in night) for night in quiet.tolist()]
    alarms = [any(exceeded_p(*cell, IMAGES, tolerance) <= alpha / family for cell in night) for night in quiet.tolist()]
    caught = [exceeded_p(*cell, IMAGES, tolerance) <= alpha / family for (cell,) in _nights(0.07, 1).tolist()]
    let_through = [ruled_out_p(*cell, IMAGES, tolerance) <= alpha for (cell,) in _nights(tolerance, 1).tolist()]
    print(f"{NIGHTS} nights: {sum(passed)} pass, {sum(alarms)} alarms; {sum(caught)} caught, {sum(let_through)} passed")
    assert sum(passed) >= 0.98 * NIGHTS
    assert sum(alarms) <= alpha * NIGHTS
    assert sum(caught) >= 0.9 * NIGHTS
    assert sum(let_through) <= 1.7 * alpha * NIGHTS  # three standard errors above alpha


def test_every_cell_of_the_shipped_plans_can_pass() -> None:
    for name in ("nightly", "start"):
        plan = read_plan(name)
        assert never_passing(plan.plan, plan.gate, plan.arms) == ()
