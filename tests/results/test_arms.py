import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from robustbench_twicing import api
from robustbench_twicing.cli.app import app
from robustbench_twicing.errors import UserError
from robustbench_twicing.metrics.arms import compare_arms
from robustbench_twicing.report.arms import arms_page
from robustbench_twicing.results.arm_comparison import ArmComparisons, compare_all, compare_run
from robustbench_twicing.results.arms import arms_of
from robustbench_twicing.results.cells import by_cell
from robustbench_twicing.results.family import Outside
from robustbench_twicing.results.run import load_run
from robustbench_twicing.spec.arms import arms_in_names
from tests.metrics.test_arms import arms
from tests.records_builder import cell, run_folder
from tests.report.shown import parsed, printed

PATTERNS = {"deit": ["deit@*"], "deit-tw": ["deit-tw@*"]}


def answers(seeds: int = 3, n: int = 60) -> Mapping[str, np.ndarray]:
    """By model, two arms."""
    both = arms(0, seeds, n)
    names = [[f"{name}@s{seed}" for seed in range(seeds)] for name in PATTERNS]
    return {
        name: row.astype(bool)
        for some, rows in zip(names, both, strict=True)
        for name, row in zip(some, rows, strict=True)
    }


def frame(threats: tuple[str, ...] = ("clean", "pgd-linf-1/255"), seeds: int = 3) -> pd.DataFrame:
    return pd.concat([cell(m, threat, right) for m, right in answers(seeds).items() for threat in threats])


def test_a_row_is_the_test_of_both_arms_answers() -> None:
    found = compare_all(arms_of(by_cell(frame()), PATTERNS))
    rows = list(answers().values())
    expected = compare_arms(np.array(rows[:3], dtype=float), np.array(rows[3:], dtype=float))
    assert [row.threat for row in found.rows] == ["clean", "pgd-linf-1/255"]
    assert found.rows[0].outcome == expected
    assert found.rows[0].p_holm == pytest.approx(min(1.0, 2 * expected.p))
    assert list(found.rows[0].baseline_accuracies) == ["deit@s0", "deit@s1", "deit@s2"]
    assert found.rows[0].n == 60


def test_threats_outside_the_family_take_no_verdict_away() -> None:
    found = compare_all(arms_of(by_cell(frame()), PATTERNS), outside={"clean": Outside("control")})
    assert [row.p_holm for row in found.rows] == [row.outcome.p for row in found.rows]
    assert "[control]" in _said(found)


def test_the_same_answers_in_another_order_give_the_same() -> None:
    mixed = frame().sample(frac=1, random_state=0)
    straight, shuffled = (compare_all(arms_of(by_cell(records), PATTERNS)) for records in (frame(), mixed))
    by_threat = {row.threat: row.outcome.p for row in shuffled.rows}
    assert all(by_threat[row.threat] == pytest.approx(row.outcome.p) for row in straight.rows)


def test_samples_that_one_model_did_not_answer_are_left_out_and_counted() -> None:
    records = frame(("clean",)).reset_index(drop=True)
    records.loc[records.index[records["model"] == "deit-tw@s1"][:4], "status"] = "failed"
    found = compare_all(arms_of(by_cell(records), PATTERNS))
    (row,) = found.rows
    assert (row.n, row.left_out) == (56, 4)
    assert "clean, deit against deit-tw: 4 sample(s) left out that some model did not answer." in _said(found)


def _said(found: ArmComparisons, difference: float | None = None) -> str:
    return " ".join(printed(arms_page(found, difference)).split())


@pytest.mark.parametrize(("recipe", "warns"), [("", True), ("0f3a", False)])
def test_weights_that_do_not_say_what_trained_them_are_named(recipe: str, warns: bool) -> None:
    found = compare_all(arms_of(by_cell(frame().assign(training_recipe=recipe)), PATTERNS))
    assert ("The weights of deit, deit-tw do not say what trained them" in _said(found)) is warns


def test_the_page_says_every_seed_and_the_level_of_its_intervals() -> None:
    found = compare_all(arms_of(by_cell(frame()), PATTERNS), alpha=0.01)
    said = _said(found)
    assert "99 % interval" in said
    assert "95 %" not in said
    for label, accuracy in zip(("s0", "s1", "s2"), found.rows[0].baseline_accuracies.values(), strict=True):
        assert f"{label}: {100 * accuracy:.1f}" in said


def test_a_difference_is_planned_for_by_seeds_and_images() -> None:
    found = compare_all(arms_of(by_cell(frame(("clean",))), PATTERNS))
    assert "Seeds that would show a true difference of 5 points" in _said(found, 0.05)
    (row,) = parsed(arms_page(found, 0.05))["rows"]
    assert [step["images"] for step in row["needed"]] == [15, 30, 60, 120, 240, 960]
    seeds = [step["seeds"] or 999 for step in row["needed"]]
    assert seeds == sorted(seeds, reverse=True)
    (fixed,) = parsed(arms_page(compare_all(arms_of(by_cell(frame(("clean",))), PATTERNS), images="fixed"), 0.05))[
        "rows"
    ]
    assert [step["images"] for step in fixed["needed"]] == [60]


def test_arms_whose_seeds_answer_alike_are_said_in_json() -> None:
    same = frame(("clean",)).assign(correct=True)
    (row,) = parsed(arms_page(compare_all(arms_of(by_cell(same), PATTERNS))))["rows"]
    assert (row["df"], row["p"], row["verdict"]) == (None, 1.0, "no difference found")


def _altered(column: str, value: object, model: str = "deit@s1") -> pd.DataFrame:
    records = frame()
    records.loc[records["model"] == model, column] = value
    return records


@pytest.mark.parametrize(
    ("records", "patterns", "says"),
    [
        (frame(), {"deit": ["deit@*"]}, "nothing to be compared with"),
        (frame(), {**PATTERNS, "x": ["vit*"]}, "no model fits 'vit\\*'"),
        (frame(), {**PATTERNS, "all": ["*"]}, "is in the arms"),
        (frame(), {"deit": ["deit@s0", "deit@s1"], "deit-tw": ["deit-tw@*"]}, "has 2 seed"),
        (_altered("attention", "twicing"), PATTERNS, "another method"),
        (_altered("training_recipe", "other"), PATTERNS, "another training recipe"),
        (_altered("weights_hash", "weights of deit@s0"), PATTERNS, "deit@s0 and deit@s1 are the same weights"),
        (
            frame().assign(training_seed=7),
            PATTERNS,
            "deit@s0 and deit@s1 and deit@s2 come from one training, with seed 7",
        ),
        (_altered("weights_hash", "weights of deit-tw@s0"), PATTERNS, "are the same weights"),
    ],
)
def test_what_is_no_arm_is_refused(records: pd.DataFrame, patterns: Mapping[str, list[str]], says: str) -> None:
    with pytest.raises(UserError, match=says):
        arms_of(by_cell(records), patterns)


@pytest.mark.parametrize(("column", "value"), [("recipe", "crop"), ("seed", 1), ("protocol_hash", "other")])
def test_arms_that_were_not_run_alike_are_refused(column: str, value: object) -> None:
    with pytest.raises(UserError, match=f"clean: .*(?s:.*){column}"):
        compare_all(arms_of(by_cell(_altered(column, value, "deit-tw@s2")), PATTERNS))


@pytest.mark.parametrize("untouched", ["", "deit-0123456789ab", "finetune-0123456789ab.from-ba9876543210"])
def test_weights_that_were_trained_further_are_not_compared_with_untouched_ones(untouched: str) -> None:
    records = frame()
    records.loc[records["model"].str.startswith("deit@"), "training_recipe"] = untouched
    further = "finetune-0123456789ab.from-0123456789ab"
    records.loc[records["model"].str.startswith("deit-tw"), "training_recipe"] = further
    with pytest.raises(UserError, match="deit-tw was trained further") as raised:
        arms_of(by_cell(records), PATTERNS)
    assert "--control" in raised.value.hint
    assert arms_of(by_cell(records.assign(training_recipe=further)), PATTERNS)


def test_arms_of_two_training_recipes_are_refused() -> None:
    records = frame()
    records.loc[records["model"].str.startswith("deit-tw"), "training_recipe"] = "finetuned"
    records.loc[records["model"].str.startswith("deit@"), "training_recipe"] = "scratch"
    with pytest.raises(UserError, match="trained by other recipes"):
        arms_of(by_cell(records), PATTERNS)


def test_the_family_is_that_of_compare_and_outliers_have_no_row(tmp_path: Path) -> None:
    attack = {"attack": "pgd", "kind": "attack", "eps": "0", "protocol": "standard", "suite": ""}
    cells = [cell(model, "pgd-linf-0", right, **attack) for model, right in answers().items()]
    records = pd.concat([frame(("clean", "imagenet-o", "clean[imagenet-o]")), *cells])
    found = compare_run(load_run(run_folder(tmp_path / "run", records)), PATTERNS)
    assert [row.threat for row in found.rows] == ["clean", "clean[imagenet-o]", "pgd-linf-0"]
    assert found.family == 2


def test_the_command_states_what_it_says_about_mechanisms(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", frame(("clean",)))
    arms = ["--arm", "deit=deit@*", "--arm", "deit-tw=deit-tw@*"]
    said = CliRunner().invoke(app, ["compare", str(run), *arms])
    assert said.exit_code == 0, said.output
    assert "3 and 3 seeds, 60 images" in " ".join(said.stdout.split())
    found = json.loads(CliRunner().invoke(app, ["compare", str(run), *arms, "--images", "fixed", "--json"]).stdout)
    assert (found["unit"], found["images"], found["family"]) == ("arms", "fixed", 1)
    assert list(found["rows"][0]["baseline_accuracies"]) == ["deit@s0", "deit@s1", "deit@s2"]


@pytest.mark.parametrize("stated", [{"deit": ("deit@*",), "deit-tw": ("deit-tw@*",)}, {}], ids=["plan", "names"])
def test_the_arms_of_a_runs_plan_or_of_its_models_names_need_no_naming(
    tmp_path: Path, stated: Mapping[str, tuple[str, ...]]
) -> None:
    run = run_folder(tmp_path / "run", frame(("clean",)), arms=stated)
    found = json.loads(CliRunner().invoke(app, ["compare", str(run), "--json"]).stdout)
    assert (found["unit"], list(found["arms"])) == ("arms", ["deit", "deit-tw"])
    assert api.compare_arms(run).rows[0].outcome.p == found["rows"][0]["p"]
    # Naming arms, or two models, asks for something else.
    named = ["--arm", "x=deit-tw@*", "--arm", "y=deit@*"]
    assert list(json.loads(CliRunner().invoke(app, ["compare", str(run), *named, "--json"]).stdout)["arms"]) == [
        "x",
        "y",
    ]
    models = CliRunner().invoke(app, ["compare", "deit@s0", "deit-tw@s0", "--run", str(run)])
    assert "deit@s0 (baseline) against deit-tw@s0" in models.stdout


def test_a_run_without_arms_names_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to be compared with"):
        api.compare_arms(run_folder(tmp_path / "run", frame(("clean",), seeds=2)))


@pytest.mark.parametrize(
    ("models", "arms"),
    [
        (["a@s0", "a@s1", "b@s7", "b@s8"], {"a": ["a@s0", "a@s1"], "b": ["b@s7", "b@s8"]}),
        (["a@s0", "a@s1", "b@s0"], {}),
        (["a@s0", "a@s1"], {}),
        (["a@s0", "a@s1", "b@s0", "b@s1", "c"], {}),
        (["a@s0", "a@s1", "b@best", "b@last"], {}),
    ],
)
def test_names_make_arms_where_every_model_is_a_seed_of_enough(models: list[str], arms: object) -> None:
    assert arms_in_names(models, 2) == arms


_BOTH = ["--arm", "deit=deit@*", "--arm", "deit-tw=deit-tw@*"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--arm", "deit"], "names no arm"),
        (["--arm", "=deit@*"], "names no arm"),
        ([*_BOTH, "--flips"], "--flips is of single models"),
        ([*_BOTH, "--plot", "x.png"], "--plot is of single models"),
        (["--images", "fixed"], "--images is of arms, and none are named"),
        (["--plan-power", "0.02"], "--plan-power is of arms, and none are named"),
        ([*_BOTH, "--run", "other"], "2 names stand here"),
        (["--arm", "deit=deit@*", "--images", "all"], "Unknown choice of images 'all'"),
        (["other", *_BOTH], "2 names stand here"),
    ],
)
def test_what_the_command_does_not_understand_is_refused(tmp_path: Path, arguments: list[str], says: str) -> None:
    run = run_folder(tmp_path / "run", frame(("clean",), seeds=2))
    result = CliRunner().invoke(app, ["compare", str(run), *arguments])
    assert result.exit_code == 2
    assert says in " ".join(result.stderr.split())
