"""`sweep`: each setting is the network with that attention, on the same weights, and only one is called trained."""

import json
from fractions import Fraction

import pytest
import torch
from typer.testing import CliRunner

from robustbench_twicing.attention.convert import apply_method
from robustbench_twicing.catalog.protocols import attack_threat, protocol
from robustbench_twicing.catalog.zoo import model_spec
from robustbench_twicing.cli.app import app
from robustbench_twicing.errors import UserError
from robustbench_twicing.inside.sweep import sweep
from robustbench_twicing.models.build import load_model
from robustbench_twicing.models.intake import wrap_model
from robustbench_twicing.spec.values import Eps
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
    assert all(cell.robust <= cell.clean for cell in found.cells)
    assert torch.equal(model(given.images), before)

    other = load_model(model_spec("deit-tw", "digits"))
    apply_method(other.network, "twicing@last2")
    right = (other(given.images).argmax(1) == given.labels).double().mean()
    assert cells["last 2"].clean == pytest.approx(float(right))


def test_a_model_without_exchangeable_attention_is_refused_and_the_command_draws_a_heat_map() -> None:
    with pytest.raises(UserError, match="no transformer blocks"):
        sweep(wrap_model("it", convolutional(steps=1), 32), samples(4), THREAT, 0)
    arguments = ["sweep", "-m", "deit", "--attack", "fgsm", "--limit", "4", "-q", "--json"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    (found,) = json.loads(result.stdout)
    assert found["threat"] == "fgsm-linf-1/255"
    assert [cell["name"] for cell in found["cells"] if cell["as_trained"]] == ["no block"]
