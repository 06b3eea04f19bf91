"""`diagnose`: planted holes get F for the right reason, honest models do not, and only real differences count."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from robustbench_twicing.catalog.protocols import attack_threat, protocol
from robustbench_twicing.catalog.zoo import model_spec
from robustbench_twicing.cli.app import app
from robustbench_twicing.errors import UserError
from robustbench_twicing.inside.binarization import binarized, last_layer
from robustbench_twicing.inside.broken import Samples
from robustbench_twicing.inside.diagnose import Budget, binarization_item, diagnose, difference
from robustbench_twicing.inside.diagnosis import Diagnosis
from robustbench_twicing.inside.gradients import _in_float64
from robustbench_twicing.models.build import load_model
from robustbench_twicing.models.classifier import Classifier
from robustbench_twicing.models.intake import wrap_model
from robustbench_twicing.spec.values import Eps, Length
from tests.inside.holes import Hole, convolutional, samples

QUICK = Budget(steps=20, restarts=1, targets=2, trials=5, queries=20, spsa=1, binarized=4)
EPS = Eps(Fraction(4, 255))


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return convolutional()


def _diagnosed(model: nn.Module | Classifier, count: int = 12, **settings: Any) -> Diagnosis:
    taken = model if isinstance(model, Classifier) else wrap_model("it", model, 32)
    return diagnose(taken, samples(count), EPS, budget=QUICK, **settings)


@pytest.mark.parametrize(
    ("hole", "reason"),
    [
        ("saturated logits", "saturation"),
        ("stochastic layer", "repeatable"),
        ("step without derivative", "gradient"),
        ("wrong backward in one block", "derivative"),
        ("vanishes under bfloat16", "bfloat16"),
    ],
)
def test_a_planted_hole_gets_f_for_the_right_reason(network: nn.Module, hole: str, reason: str) -> None:
    found = _diagnosed(Hole(network, hole))
    assert found.grade == "F"
    assert found.reasons[0].key == reason
    if hole == "step without derivative":
        assert "some step has no derivative" in found.reasons[0].meaning
    else:
        assert [item.key for item in found.reasons if item.key in ("gradient", "fused")] == []


def test_an_attack_that_misses_what_is_known_to_exist_fails_the_binarization_test(network: nn.Module) -> None:
    model, given = wrap_model("it", network, 32), samples(4)
    pgd = attack_threat(protocol("standard"), "pgd", EPS)
    tiny = {"steps": 1, "step_size": Length.parse("0.01 eps"), "random_start": False}
    weak = pgd.model_copy(update={"settings": pgd.settings.model_copy(update=tiny)})
    before = model(given.images)
    strong, planted, no_gradient = (
        binarized(model, given, pgd, 0),
        binarized(model, given, weak, 0),
        binarized(wrap_model("it", Hole(network, "step without derivative"), 32), given, pgd, 0),
    )
    assert (strong, planted, no_gradient) == ((4, 4, 0), (4, 0, 0), (4, 0, 0))
    assert strong is not None
    assert planted is not None
    assert (binarization_item(strong).grade, binarization_item(planted).grade) == ("A", "F")
    assert torch.equal(model(given.images), before)
    assert last_layer(model, given.images) is network[-1]  # type: ignore[index]
    assert not any(part._forward_hooks for part in network.modules())
    assert binarized(wrap_model("it", Hole(network, "saturated logits"), 32), given, pgd, 0) is None


@pytest.mark.dear
def test_honest_models_are_not_accused(network: nn.Module) -> None:
    honest = {"convolutional": network, "trained with PGD": convolutional(steps=40, eps=4 / 255)}
    for name in ("deit", "deit-tw"):
        honest[name] = load_model(model_spec(name, "digits"))
    for name, model in honest.items():
        found = _diagnosed(model, 8 if isinstance(model, Classifier) else 32)
        assert found.grade in ("A", "B", "C"), (name, found.reasons)
        assert set(found.robust) <= set(found.under_pgd)
        keys = {item.key for item in found.items}
        assert "binarization" in keys
        assert ("fused" in keys) == isinstance(model, Classifier)
        assert ("plain" in keys) == (name == "deit-tw")


def test_a_difference_is_real_only_under_the_strongest_attack_on_each_and_without_a_masked_gradient() -> None:
    ids = tuple(map(str, range(100)))

    def diagnosis(robust: int, under_pgd: int) -> Diagnosis:
        return Diagnosis("it", "4/255", 100, (), ids[:robust], ids[:under_pgd], ())

    real = difference(diagnosis(40, 50), diagnosis(70, 75), ids)
    assert (real.verdict, real.strongest, real.pgd) == ("real", 0.3, 0.25)
    masked = difference(diagnosis(40, 50), diagnosis(42, 90), ids)
    assert masked.verdict == "not shown"
    assert masked.low < 0 < masked.high
    assert masked.pgd_low > 0


def test_slopes_of_an_own_model_are_measured_without_rounding_to_float32(network: nn.Module) -> None:
    """Rounded to float32, only long steps tell slopes, and those meet kinks: an undefended network got an F."""
    model, given = wrap_model("it", network, 32), samples(2).images
    exact, step, _ = _in_float64(model)
    answers = exact(given.double())
    assert step == 1e-9
    assert bool((answers != answers.float()).any())
    assert model(given).dtype == torch.float32


def test_a_model_that_is_never_right_is_refused(network: nn.Module) -> None:
    given = samples(6)
    wrong = Samples(given.ids, given.images, (given.labels + 1) % 10)
    with pytest.raises(UserError, match="none of these images rightly"):
        diagnose(wrap_model("it", network, 32), wrong, EPS, budget=QUICK)


def test_the_command_prints_grades_evidence_and_the_difference_and_keeps_who_stands(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("robustbench_twicing.inside.diagnose.USUAL", QUICK)
    models = ["--model", "deit", "--model", "deit-tw"]
    arguments = ["diagnose", *models, "--limit", "4", "--eps", "1/255", "--json", "-q", "--out", str(tmp_path / "kept")]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert [one["model"] for one in facts["models"]] == ["deit", "deit-tw"]
    assert all(one["grade"] in "ABC" for one in facts["models"])
    assert facts["differences"][0]["verdict"] == "not shown"
    compared = json.loads(CliRunner().invoke(app, ["compare", str(tmp_path / "kept"), "--json"]).stdout)
    assert compared["rows"][-1]["figure"] == "right after everything found"
    assert compared["rows"][-1]["difference"] == pytest.approx(facts["differences"][0]["strongest"])
    assert compared["grades"] == {one["model"]: one["grade"] for one in facts["models"]}
    assert {item["key"] for item in facts["models"][0]["items"]} >= {"derivative", "square", "from deit-tw"}
