"""Images made on one model and judged by others."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from typer.testing import CliRunner

from robustbench_twicing import evaluate, load_run
from robustbench_twicing.catalog.zoo import model_spec
from robustbench_twicing.cli.app import app
from robustbench_twicing.data.digits import digits
from robustbench_twicing.errors import UserError
from robustbench_twicing.metrics.intervals import wilson_interval
from robustbench_twicing.models.build import load_model
from robustbench_twicing.report.transfer import transfer_tables
from robustbench_twicing.spec.models import Recipe

MODELS = ("deit", "deit-tw")
EPS, COUNT = 16 / 255, 40


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    words = ["transfer", "-m", "deit", "-m", "deit-tw", "-a", "fgsm", "--eps", "16/255", "--limit", str(COUNT), "-q"]
    result = CliRunner().invoke(app, [*words, "--json"])
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_every_model_judges_what_fgsm_by_hand_makes_on_every_other(made: dict[str, Any]) -> None:
    data = digits()
    images = data.read(range(COUNT), [Recipe()]).images[Recipe()]
    labels = torch.tensor(data.labels[:COUNT])
    models = {name: load_model(model_spec(name, "digits")) for name in MODELS}
    counted = {("clean", name): (models[name](images).argmax(1) == labels) for name in MODELS}
    for source in MODELS:
        asked = images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(models[source](asked), labels, reduction="sum"), asked)
        changed = (images + EPS * gradient.sign()).clamp(0, 1)
        for target in MODELS:
            right = counted["clean", target] & (models[target](changed).argmax(1) == labels)
            counted[f"fgsm-linf-16/255-from-{source}", target] = right
    found = {(row["threat"], row["model"]): row["accuracy"] for row in made["rows"]}
    assert found == {cell: int(right.sum()) / COUNT for cell, right in counted.items()}
    assert len(set(found.values())) > 3


def test_a_table_has_the_sources_as_rows_and_who_judges_as_columns(made: dict[str, Any]) -> None:
    (table,) = transfer_tables(load_run(made["run"]))
    assert [row["source"] for row in table.rows] == ["no model (clean)", *MODELS]
    accuracy = {(row["threat"], row["model"]): row["accuracy"] for row in made["rows"]}
    for source, row in zip(MODELS, table.rows[1:], strict=True):
        for number, target in enumerate(MODELS):
            right = round(COUNT * accuracy[f"fgsm-linf-16/255-from-{source}", target])
            assert row[f"accuracy {number}"] == right / COUNT
            assert row[f"interval {number}"] == pytest.approx(wilson_interval(right, COUNT))


def test_a_source_that_is_named_twice_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["transfer", "-m", "deit", "--source-model", "deit", "--source-model", "deit"])
    assert result.exit_code == 2
    assert "Named twice: pgd-linf-1/255-from-deit." in result.output


def test_an_attack_through_attention_is_transferred_and_refused_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["transfer", "-m", "deit", "-m", "deit-tw", "--source-model", "deit", "-a", "tgr", "--eps", "16/255"]
    result = CliRunner().invoke(app, [*words, "--limit", "12", "--json", "-q"])
    assert result.exit_code == 0, result.output
    found = {(row["threat"], row["model"]): row["accuracy"] for row in json.loads(result.stdout)["rows"]}
    assert {threat for threat, _ in found} == {"clean", "tgr-linf-16/255-from-deit"}
    assert found["tgr-linf-16/255-from-deit", "deit"] < found["clean", "deit"]
    flat = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 10))
    with pytest.raises(UserError, match="tgr on flat: This attack looks into attention"):
        evaluate({"flat": flat}, attacks=["tgr"], limit=5, out="refused")
    assert not list(Path("refused").glob("records/*"))
