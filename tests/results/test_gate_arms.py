"""The gate of a job that retrains: arms of training seeds on both sides, which noise of the seeds does not set off."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom
from typer.testing import CliRunner

from robustbench_twicing import api
from robustbench_twicing.cli.app import app
from robustbench_twicing.errors import UserError
from robustbench_twicing.metrics.arms import compare_arms, margin_p, one_sided
from robustbench_twicing.report.gate import Sides, gate_page
from robustbench_twicing.results.baselines import accept
from robustbench_twicing.results.gate_cells import Cell as GateCell
from robustbench_twicing.results.gate_cells import Frames, judge
from robustbench_twicing.results.run import load_run
from robustbench_twicing.spec.policy import Policy
from tests.records_builder import cell, run_folder
from tests.report.shown import printed
from tests.report.test_gate import ACCEPTED
from tests.results.test_gate import check

ARMS = {"deit": ["deit@*"], "twicing": ["deit-tw@*"]}
SEEDS, IMAGES = 4, 400
EASE = np.random.default_rng(0).beta(4, 1, IMAGES)
"""How likely each image is answered rightly: the same images every night."""


def _answers(generator: np.random.Generator, drop: float = 0.0, spread: float = 0.02, seeds: int = SEEDS) -> np.ndarray:
    """Right answers of seeds × images: images differ in difficulty, seeds in their accuracy."""
    level = generator.normal(0, spread, (seeds, 1)) - drop
    return generator.random((seeds, IMAGES)) < np.clip(EASE + level, 0, 1)


def _frame(generator: np.random.Generator, when: str, drop: float = 0.0, seeds: int = SEEDS) -> pd.DataFrame:
    frames = []
    for name in ("deit", "deit-tw"):
        for seed, right in enumerate(_answers(generator, drop if name == "deit-tw" else 0.0, seeds=seeds)):
            model = f"{name}@s{seed}"
            frames.append(cell(model, "clean", right, weights_hash=f"{model} of {when}"))
    return pd.concat(frames, ignore_index=True)


@pytest.fixture(scope="module")
def sides() -> tuple[pd.DataFrame, pd.DataFrame]:
    return tuple(_frame(np.random.default_rng(seed), when) for seed, when in ((1, "before"), (2, "tonight")))


def test_retrained_models_are_judged_by_their_arms(sides: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    baseline, run = sides
    result = check(run, baseline, Policy(tolerance=0.1), ARMS)
    assert [(c.model, c.verdict) for c in result.cells] == [("deit", "pass"), ("twicing", "pass")]
    assert "(4 and 4 seeds, 400 images)" in result.cells[0].reason
    assert len(check(run, baseline, Policy(tolerance=0.1)).cells) == 8
    page = printed(gate_page(result, Sides("run", "nightly", ACCEPTED)))
    assert "twicing" in page
    assert "deit-tw@s0" not in page


def test_seeds_that_allow_no_statement_are_inconclusive_and_say_so(sides: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    result = check(sides[1], sides[0], Policy(tolerance=0.012), ARMS)
    assert result.verdict == "inconclusive"
    assert "% of the uncertainty is training seeds" in result.cells[0].reason


def test_an_arm_that_drops_is_regressed_and_so_is_one_below_its_floor(sides: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    run = _frame(np.random.default_rng(3), "tonight", drop=0.15)
    result = check(run, sides[0], Policy(tolerance=0.03, floors={"twicing:*": 0.75}), ARMS)
    assert [(c.model, c.verdict) for c in result.cells] == [("deit", "pass"), ("twicing", "regressed")]
    floored = check(run, sides[0], Policy(tolerance=0.3, floors={"twicing:*": 0.78}), ARMS)
    assert "is below its floor of 78.0 % (p" in floored.cells[1].reason


def test_one_arm_is_enough_and_other_models_are_judged_by_themselves(sides: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    result = check(sides[1], sides[0], Policy(tolerance=0.1), {"twicing": ["deit-tw@*"]})
    assert [c.model for c in result.cells] == ["twicing", *(f"deit@s{seed}" for seed in range(SEEDS))]


def test_samples_that_some_seed_did_not_answer_are_missing(sides: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    baseline, run = sides[0], sides[1].copy()
    run.loc[run.index[run["model"] == "deit@s1"][:7], "status"] = "skipped"
    result = check(run, baseline, Policy(tolerance=0.1), ARMS)
    assert result.cells[0].verdict == "inconclusive"
    assert "of the baseline's 400 samples 7 skipped" in result.cells[0].reason


def test_an_arm_that_lacks_a_seed_or_is_mixed_is_refused_by_its_side(sides: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    baseline, run = sides
    few = run[~run["model"].isin(["deit@s0", "deit@s1"])]
    with pytest.raises(UserError, match=r"^The run: Arm deit has 2 seed"):
        check(few, baseline, Policy(), ARMS)
    mixed = baseline.assign(attention=np.where(baseline["model"] == "deit@s0", "twicing", baseline["attention"]))
    with pytest.raises(UserError, match=r"^The baseline: Arm deit mixes models with another method"):
        check(run, mixed, Policy(), ARMS)


def test_identical_answers_of_all_seeds_need_as_many_images_as_of_one_model() -> None:
    def night(n: int, when: str) -> Frames:
        return {f"s{seed}": cell(f"s{seed}", "clean", np.ones(n, dtype=bool), weights_hash=when) for seed in range(3)}

    for n, verdict in ((298, "inconclusive"), (299, "pass")):
        both = GateCell("deit", "clean", night(n, "now"), night(n, "before"), True)
        (result,) = judge([both], Policy(tolerance=0.01))
        assert result.verdict == verdict


def test_the_command_takes_arms_from_its_options_or_from_the_plan(
    sides: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path
) -> None:
    stated: Mapping[str, tuple[str, ...]] = {name: tuple(some) for name, some in ARMS.items()}
    baseline = accept(load_run(run_folder(tmp_path / "before", sides[0])), tmp_path / "baseline", who="ada", why="x")
    plain = str(run_folder(tmp_path / "plain", sides[1]))
    armed = str(run_folder(tmp_path / "armed", sides[1], arms=stated))

    def cells(run: str, *options: str) -> list[str]:
        command = ["gate", run, "--baseline", str(baseline.path), "--tolerance", "0.1", "--json", *options]
        found = json.loads(CliRunner().invoke(app, command, catch_exceptions=False).stdout)["cells"]
        assert all(("seeds" in one) == (one["model"] in ARMS) for one in found)
        return [one["model"] for one in found]

    assert cells(plain, "--arm", "deit=deit@*", "--arm", "twicing=deit-tw@*") == ["deit", "twicing"]
    assert cells(armed) == ["deit", "twicing"]
    assert len(cells(plain)) == len(cells(armed, "--each-model")) == 2 * SEEDS
    both = CliRunner().invoke(app, ["gate", plain, "--baseline", "b", "--arm", "a=deit@*", "--each-model"])
    assert both.exit_code == 2
    assert api.gate(plain, baseline.path, arms={"deit": "deit@*"}).cells[0].model == "deit"


def test_nights_of_retraining_without_a_drop_are_rarely_regressed_nor_is_a_drop_let_through() -> None:
    """Seeds of sd 2 points and a tolerance of 2: by one model a night the seed alone would decide."""
    generator, drop, nights = np.random.default_rng(6), 0.02, 300
    counts = {"alarm": 0, "alarm at the tolerance": 0, "passed at the tolerance": 0}
    at_the_edge = float((EASE - np.clip(EASE - drop, 0, 1)).mean())
    for _ in range(nights):
        before, same, worse = (_answers(generator, fall).astype(float) for fall in (0.0, 0.0, drop))
        counts["alarm"] += one_sided(compare_arms(before, same), -drop)[0] <= 0.05
        edge = compare_arms(before, worse)
        counts["alarm at the tolerance"] += one_sided(edge, -at_the_edge)[0] <= 0.05
        counts["passed at the tolerance"] += margin_p(edge, at_the_edge, before.shape[1])[0] <= 0.05
    print(f"of {nights}: {counts}")
    assert max(counts.values()) <= binom.ppf(0.999, nights, 0.06)  # the arms' test holds its level to about a point
