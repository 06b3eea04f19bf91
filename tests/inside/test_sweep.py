"""`sweep`: each setting is the network with that attention, on the same weights, and only one is called trained."""

import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from robustbench_twicing.attention.convert import apply_method
from robustbench_twicing.catalog.locate import definitions
from robustbench_twicing.catalog.protocols import attack_threat, protocol
from robustbench_twicing.catalog.zoo import model_spec
from robustbench_twicing.cli.app import app
from robustbench_twicing.errors import UserError
from robustbench_twicing.inside.sweep import settings_of, sweep, swept_again
from robustbench_twicing.inside.swept import Sweep
from robustbench_twicing.models.build import load_model
from robustbench_twicing.models.intake import wrap_model
from robustbench_twicing.report.sweep import sweep_page
from robustbench_twicing.results.measured import load_measured
from robustbench_twicing.runner.retrain import Retraining, retrained
from robustbench_twicing.spec.values import Eps
from robustbench_twicing.train import several
from tests.inside.holes import convolutional, samples

THREAT = attack_threat(protocol("standard"), "fgsm", Eps(Fraction(4, 255)))


def test_every_setting_is_the_same_weights_with_that_attention() -> None:
    model, given = load_model(model_spec("deit-tw", "digits")), samples(12)
    before = model(given.images)
    found = sweep(model, given, THREAT, 0)
    cells = {cell.name: cell for cell in found.cells}
    assert list(cells) == [
        *("no block", *(f"block {n}" for n in range(6)), *(f"last {n}" for n in range(1, 7))),
        *(f"strength {strength}" for strength in ("0.25", "0.5", "0.75", "1")),
    ]
    assert [cell.name for cell in found.cells if cell.as_trained] == ["last 6", "strength 1"]
    assert cells["last 6"][2:] == cells["strength 1"][2:]
    assert {cell.seed for cell in found.cells} == {None}
    assert all(cell.robust <= cell.clean for cell in found.cells)
    assert torch.equal(model(given.images), before)

    other = load_model(model_spec("deit-tw", "digits"))
    apply_method(other.network, "twicing@last2")
    right = (other(given.images).argmax(1) == given.labels).double().mean()
    assert cells["last 2"].clean == pytest.approx(float(right))


def test_a_model_without_exchangeable_attention_is_refused_and_the_command_keeps_who_is_right(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no transformer blocks"):
        sweep(wrap_model("it", convolutional(steps=1), 32), samples(4), THREAT, 0)
    arguments = [
        "sweep",
        "-m",
        "deit",
        "--attack",
        "fgsm",
        "--limit",
        "4",
        "-q",
        "--json",
        "--out",
        str(tmp_path / "kept"),
    ]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert CliRunner().invoke(app, [*arguments, "--seeds", "0-2"]).exit_code == 2
    (found,) = json.loads(result.stdout)
    assert found["threat"] == "fgsm-linf-1/255"
    assert [cell["name"] for cell in found["cells"] if cell["as_trained"]] == ["no block"]
    manifest, rows = load_measured(tmp_path / "kept")
    assert manifest.command == "sweep"
    means = rows.groupby(["place", "threat"], observed=True)["value"].mean()
    for cell in found["cells"]:
        assert means[cell["name"], "clean"] == pytest.approx(cell["clean"])
        assert means[cell["name"], "fgsm-linf-1/255"] == pytest.approx(cell["robust"])


def test_each_setting_is_trained_once_with_its_own_attention_and_stands_in_a_table_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = (definitions("recipes") / "digits.toml").read_text("utf-8")
    quick = tmp_path / "quick.toml"
    changed = {"epochs": "1", "batch": "600", "warmup_epochs": "0"}
    quick.write_text(
        re.sub(r"(?m)^(\w+) = \S+", lambda m: f"{m[1]} = {changed[m[1]]}" if m[1] in changed else m[0], recipe)
    )
    trained: list[str] = []

    def in_this_process(trainings: Any, at_once: int) -> Any:
        for one in trainings:
            trained.append(f"{one.model} {one.seed}")
            yield one, several._train(one)

    monkeypatch.setattr(several, "train_several", in_this_process)
    model, given = load_model(model_spec("deit-tw", "digits")), samples(12)
    settings = [one for one in settings_of(model) if one.name in ("block 5", "last 1", "last 2")]
    how = Retraining(str(quick), (3,), tmp_path / "weights")
    first = swept_again(retrained(model, settings, how, lambda what: None), given, THREAT, 0)
    assert trained == ["deit+twicing@5 3", "deit+twicing@4,5 3"]
    assert [(cell.name, cell.seed) for cell in first] == [(one.name, 3) for one in settings]
    assert first[0][2:] == first[1][2:]  # the same attention, so the same weights
    loaded = {one.model.card.spec.weights: one.model for one in retrained(model, settings, how, lambda what: None)}
    assert (len(trained), len(loaded)) == (2, 2)
    assert {m.card.attention for m in loaded.values()} == {"twicing@5", "twicing@4,5"}
    assert {m.card.training_seed for m in loaded.values()} == {3}
    assert len({m.card.weights_hash for m in loaded.values()}) == 2
    with pytest.raises(UserError, match="is there already"):
        list(retrained(model, settings, how._replace(recipe="digits"), lambda what: None))

    dropped_in = tuple(cell._replace(seed=None, as_trained=False) for cell in first)
    page = sweep_page([Sweep("deit-tw", "twicing", THREAT.id, 12, 6, dropped_in, first, "quick")])
    drop_in, own = page.tables
    assert {row["weights"] for row in drop_in.rows} == {"given"}
    assert {(row["weights"], row["seed"]) for row in own.rows} == {("trained so", 3)}
    assert "another seed trains another network" in page.parts[-1].text
