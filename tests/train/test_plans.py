"""A plan that names arms to train: says so, trains them, evaluates them, and does neither twice."""

import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from robustbench_twicing.catalog.locate import definitions
from robustbench_twicing.catalog.plans import read_plan
from robustbench_twicing.cli.app import app
from robustbench_twicing.errors import UserError

PLAN = """
limit = 10
[train]
models = ["deit-tw"]
seeds = [3]
recipe = "one.toml"
[[attacks]]
names = ["fgsm"]
[means]
device = "cpu"
batch_size = 10
attention_path = "explicit"
preflight = false
"""


@pytest.fixture(autouse=True)
def _in_a_folder_with_a_recipe(tmp_path, monkeypatch):
    text = (definitions("recipes") / "digits.toml").read_text("utf-8")
    (tmp_path / "one.toml").write_text(text.replace("epochs = 100", "epochs = 1").replace("_epochs = 5", "_epochs = 0"))
    (tmp_path / "p.toml").write_text(PLAN)
    monkeypatch.chdir(tmp_path)


def call(*arguments, code=0):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code, result.output
    return result


def test_run_trains_the_arms_of_a_plan_then_evaluates_them_and_keeps_both():
    weights = Path("results/trained/p/deit-tw-s3.safetensors")
    checked = call("plan", "check", "p.toml").output
    assert "trains first: deit-tw, seeds 3, by recipe one on digits" in checked
    assert "(0 of 1 are there)" in checked
    assert json.loads(call("run", "p.toml", "--dry-run", "--json").stdout)["to_train"] == {"deit-tw": 1}
    assert not weights.exists()

    first = call("run", "p.toml", "--json")
    assert "Trains 1 of 1 arms' seeds first." in first.stderr
    assert "deit-tw, seed 3: clean accuracy" in first.stderr
    (folder,) = Path("results/runs").glob("p-*")
    records = pd.concat(pd.read_parquet(file) for file in folder.glob("records/*/*.parquet"))
    assert set(records["model"]) == {"deit-tw@s3"}
    assert set(records["training_seed"]) == {3}
    assert records["training_recipe"].str.startswith("one-").all()

    before = weights.stat().st_mtime_ns
    again = call("run", "p.toml", "--json")
    assert "Trains" not in again.stderr
    assert json.loads(again.stdout) == json.loads(first.stdout)
    assert list(Path("results/runs").glob("p-*")) == [folder]
    assert weights.stat().st_mtime_ns == before


def test_weights_that_another_recipe_made_are_no_arm_of_the_plan():
    weights = Path("results/trained/p/deit-tw-s3.safetensors")
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"of something else")
    refused = call("run", "p.toml", code=2)
    assert "is there already, and is not deit-tw trained with seed 3 by this recipe" in refused.stderr


def test_every_mistake_of_the_table_is_named_with_its_line():
    Path("p.toml").write_text(
        '[train]\nmodels = ["deit", "deiit"]\nseeds = [0]\nrecipe = "digts"\neps = "4/255"\ndepth = 3\n'
    )
    with pytest.raises(UserError) as raised:
        read_plan("p.toml")
    assert "line 6: train.depth" in raised.value.message
    Path("p.toml").write_text('[train]\nmodels = ["deit", "deiit"]\nrecipe = "digts"\n')
    with pytest.raises(UserError) as raised:
        read_plan("p.toml")
    assert "line 2: train.models[1]: Unknown model 'deiit'" in raised.value.message
    assert "line 3: train.recipe: Unknown recipe 'digts'" in raised.value.message


def test_a_control_is_an_arm_too_and_finetune_needs_one():
    Path("p.toml").write_text('[train]\nmodels = ["deit-tw"]\nseeds = [0, 1]\ncontrol = true\n')
    names = [spec.name for spec in read_plan("p.toml").plan.models]
    assert names == ["deit-tw@s0", "deit-tw@s1", "deit-tw+softmax@s0", "deit-tw+softmax@s1"]
    Path("p.toml").write_text('[train]\nmodels = ["deit-tw"]\nrecipe = "finetune"\n')
    with pytest.raises(UserError, match="beside a control only"):
        read_plan("p.toml")
