"""Where two mechanisms differ: a planted slice is found, and nothing is where only seeds and images differ."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
from typer.testing import CliRunner

from robustbench_twicing.cli.app import app
from robustbench_twicing.metrics.paired import ArmPairs
from robustbench_twicing.report.arms import arms_page
from robustbench_twicing.results.arm_comparison import compare_run
from robustbench_twicing.results.arm_slices import FEWEST_IMAGES, ArmOutcomes, find_arm_slices
from robustbench_twicing.results.run import load_run
from tests.records_builder import records, run_folder, side
from tests.report.shown import parsed, printed

THREATS = ("clean", "pgd-linf-1/255", "pgd-linf-4/255", *(f"digits-c:fog-{severity}" for severity in (1, 3, 5)))
DEFINED = side(records({("deit", threat): [True] for threat in THREATS}), "deit").threats
IMAGES, SEEDS = 400, 3
IDS, LABELS = np.array([f"{number:04d}" for number in range(IMAGES)], dtype=object), np.arange(IMAGES) % 10
NOTHING = np.zeros((2 * SEEDS, 0), dtype=bool)


def _drawn(seed: int) -> dict[str, np.ndarray]:
    """Answers of two arms of three seeds that are one mechanism: seeds differ, and like other images."""
    draw = np.random.default_rng(seed)
    ease, luck = draw.normal(0.7, 1, IMAGES), draw.normal(0, 0.1, (2 * SEEDS, 1))
    taste = draw.normal(0, 0.5, (2 * SEEDS, IMAGES))
    return {threat: ease + luck + taste + draw.normal(0, 0.5, (2 * SEEDS, IMAGES)) > 0 for threat in THREATS}


def _outcomes(drawn: dict[str, np.ndarray], margins: np.ndarray) -> ArmOutcomes:
    pairs = {
        threat: ArmPairs(IDS, LABELS, right[:SEEDS], right[SEEDS:], 0, NOTHING, NOTHING)
        for threat, right in drawn.items()
    }
    return ArmOutcomes("deit", "deit-tw", pairs, DEFINED, pd.Series(margins, IDS))


def test_where_only_seeds_and_images_differ_something_is_found_in_alpha_of_cases_at_most() -> None:
    alpha, repetitions, wrong, asked = 0.05, 100, 0, 0
    for seed in range(repetitions):
        margins = np.random.default_rng((seed, 1)).normal(size=IMAGES)
        slices = find_arm_slices([_outcomes(_drawn(seed), margins)], alpha=alpha)
        wrong += len(slices.found) > 0
        asked += slices.asked
    print(f"something is found in {wrong / repetitions:.1%} of {repetitions}; {asked / repetitions:.0f} slices each")
    assert asked > 20 * repetitions
    assert wrong / repetitions <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / repetitions)


def test_a_planted_class_severity_and_margin_are_found_and_said(tmp_path: Path) -> None:
    drawn, margins = _drawn(1), np.random.default_rng(2).permutation(IMAGES) / 100
    for threat in THREATS[1:3]:
        drawn[threat][:SEEDS, LABELS == 3] = True
        drawn[threat][SEEDS:, LABELS == 3] = False
    drawn[THREATS[5]][SEEDS:, LABELS < 5] = True
    drawn["clean"][SEEDS:, margins < 1] = True
    models = [f"{name}@s{seed}" for name in ("deit", "deit-tw") for seed in range(SEEDS)]
    frame = records({(m, threat): right[row] for threat, right in drawn.items() for row, m in enumerate(models)})
    frame["margin"] = np.tile(margins, len(models) * len(THREATS))
    run = load_run(run_folder(tmp_path / "run", frame))
    found = compare_run(run, {"deit": ("deit@*",), "deit-tw": ("deit-tw@*",)})
    best = {(one.of, one.by, one.value): one for one in found.slices.found}
    worst = best["pgd-linf", "class", "3"]
    assert (worst.verdict, worst.images, worst.difference) == ("worse", 40, -1.0)
    assert best["digits-c", "severity", "5"].verdict == "better"
    assert best["clean", "margin", "smallest quarter"].verdict == "better"
    assert next(one for one in found.slices.found if one.by == "class") == worst
    assert all(one.images >= FEWEST_IMAGES for one in found.slices.found)
    text = " ".join(printed(arms_page(found, slices=True)).split())
    assert f"{len(best)} of {found.slices.asked} stand out" in text
    assert "slices" not in parsed(arms_page(found))
    assert len(parsed(arms_page(found, slices=True))["slices"]["found"]) == len(best)
    command = ["compare", str(run.path), "--arm", "deit=deit@*", "--arm", "deit-tw=deit-tw@*", "--slices"]
    said = CliRunner().invoke(app, command, catch_exceptions=False, env={"COLUMNS": "200"})
    assert said.exit_code == 0, said.output
    assert "class: 3" in said.stdout
