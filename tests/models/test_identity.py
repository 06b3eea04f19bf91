"""Which runs may use whose finished samples: a module in memory is known by its answers, and vouched for by nobody."""

import pytest
import torch
from torch import nn

from robustbench_twicing.api import evaluate
from robustbench_twicing.errors import UserError
from robustbench_twicing.models.build import new_network
from robustbench_twicing.models.intake import wrap_model
from tests.engine.tiny import small_net

HOW = {"attacks": ["noise"], "limit": 8}


class Normed(nn.Module):
    """One network behind different normalisations; counts the images that it is shown."""

    def __init__(self, mean: float = 0.5) -> None:
        super().__init__()
        self.net, self.mean, self.shown = new_network("deit_digits_patch8_32"), mean, 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.shown += len(images)
        logits: torch.Tensor = self.net((images - self.mean) / 0.5)
        return logits


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def _shown(model: Normed, **how) -> int:
    """How many images a run shows the model, beyond those that it is looked at with."""
    before = model.shown
    evaluate({"mine": model}, **HOW, preflight=False, **how)
    return model.shown - before


def test_the_same_weights_behind_another_normalisation_are_another_model():
    one, other, again = (wrap_model("mine", Normed(mean), 32).card for mean in (0.5, 0.4, 0.5))
    assert one.weights_hash == again.weights_hash != other.weights_hash
    assert one.spec == again.spec != other.spec


def test_a_module_that_was_corrected_is_not_shown_its_old_numbers():
    wrong = evaluate({"mine": Normed(0.0)}, **HOW)
    right = evaluate({"mine": Normed(0.5)}, **HOW)
    fresh = evaluate({"mine": Normed(0.5)}, **HOW, out="fresh")
    assert wrong.path != right.path
    assert list(right.records["margin"]) == list(fresh.records["margin"]) != list(wrong.records["margin"])


def test_a_module_in_memory_is_always_computed_anew():
    model = Normed()
    first = _shown(model)
    assert _shown(model) == _shown(model, out="elsewhere") == _shown(Normed()) == first > 8
    run = evaluate({"mine": model}, **HOW)
    assert "mine is in memory and has no version: it was computed anew." in run.remarks
    assert len(run.records) == 16


def test_a_version_lets_finished_samples_be_used_again():
    first = _shown(Normed(), versions={"mine": "v2"})
    little = _shown(Normed(), versions={"mine": "v2"})
    assert little == _shown(Normed(), versions={"mine": "v2"}, out="elsewhere") < first
    assert _shown(Normed(), versions={"mine": "v3"}) == first


def test_a_version_does_not_hide_that_a_module_answers_otherwise():
    wrong = evaluate({"mine": Normed(0.0)}, **HOW, versions={"mine": "v2"})
    right = evaluate({"mine": Normed(0.5)}, **HOW, versions={"mine": "v2"})
    assert list(right.records["margin"]) != list(wrong.records["margin"])


@pytest.mark.parametrize("version", ["a b", "x" * 65, "a/b", "\n"])
def test_a_version_is_a_plain_word(version):
    with pytest.raises(UserError, match="is no version of 'mine'"):
        evaluate({"mine": small_net(32, classes=10)}, **HOW, versions={"mine": version})


def test_models_with_a_name_are_continued_beside_a_module(tmp_path):
    evaluate({"mine": Normed(), "deit": "deit"}, **HOW, out=tmp_path / "run")
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "run").rglob("deit*/*.parquet")}
    run = evaluate({"mine": Normed(), "deit": "deit"}, **HOW, out=tmp_path / "run")
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "run").rglob("deit*/*.parquet")} == before
    assert len(run.records) == 32
