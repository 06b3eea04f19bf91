"""Every model of every run is looked at, and the run says at which ones somebody looked and what was found."""

import pytest
import torch
from torch import nn

from robustbench_twicing.api import evaluate
from robustbench_twicing.errors import UserError
from tests.engine.tiny import small_net

SUITE = {"suites": ["digits-c"], "corruptions": ["fog"], "severities": [1], "limit": 16}
ATTACK = {"attacks": ["fgsm"], "limit": 16}


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


class Changed(nn.Module):
    """A small network whose logits something is done to; by a name, so that a version can vouch for it."""

    def __init__(self, how: str = "") -> None:
        super().__init__()
        self.net, self.how = small_net(32, classes=10), how
        self.norm = nn.BatchNorm1d(10, affine=False, track_running_stats=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        match self.how:
            case "no_grad":
                with torch.no_grad():
                    return self.net(images)
            case "inference_mode":
                with torch.inference_mode():
                    return self.net(images)
            case "numpy":
                return torch.from_numpy(self.net(images).detach().numpy())
            case "numpy of a gradient":
                return self.net(torch.from_numpy(images.numpy()))
            case "detached":
                return self.net(images.detach()).requires_grad_()
            case "in place":
                logits = self.net(images)
                return logits.exp_().mul_(logits)
        logits = self.net(images)
        match self.how:
            case "batch":
                return self.norm(logits)
            case "random":
                return logits + torch.randn_like(logits)
            case "probabilities":
                return logits.softmax(1)
            case "nan":
                return logits * torch.nan
        return logits


@pytest.mark.parametrize("how", ["no_grad", "inference_mode", "numpy", "numpy of a gradient", "detached", "in place"])
def test_a_model_without_a_gradient_is_refused_for_that_and_runs_without_one(how):
    with pytest.raises(UserError, match=r"gives no gradient: (.|\n)*--attack square"):
        evaluate({"mine": Changed(how)}, **ATTACK)
    run = evaluate({"mine": Changed(how)}, attacks=["square"], limit=4)
    assert set(run.records["status"]) == {"ok"}


def test_a_gradient_that_is_asked_for_all_the_same_ends_in_a_message():
    with pytest.raises(UserError, match="gives no gradient"):
        evaluate({"mine": Changed("no_grad")}, **ATTACK, preflight=False)


@pytest.mark.parametrize(
    ("how", "says"), [("batch", "images beside it"), ("random", "at random"), ("nan", "not finite")]
)
def test_what_makes_a_suites_numbers_meaningless_is_refused(how, says):
    with pytest.raises(UserError, match=says):
        evaluate({"mine": Changed(how)}, **SUITE)


def test_probabilities_in_a_suite_are_a_remark_and_under_attack_refused():
    run = evaluate({"mine": Changed("probabilities")}, **SUITE)
    assert [(one.check, one.refuses) for one in run.manifest.preflight.findings if one.check == "logits"] == [
        ("logits", False)
    ]
    assert any("probabilities" in remark for remark in run.remarks)
    with pytest.raises(UserError, match="returns probabilities"):
        evaluate({"mine": Changed("probabilities")}, **ATTACK)


def _looked(run) -> tuple[bool, list[str], list[str]]:
    said = run.manifest.preflight
    return said.ran, list(said.models), [one.check for one in said.findings]


def test_ran_is_said_only_of_models_that_were_looked_at():
    assert _looked(evaluate(["deit", "deit-tw"], **SUITE)) == (True, ["deit", "deit-tw"], [])
    assert _looked(evaluate("deit", **ATTACK, preflight=False)) == (False, [], [])
    grown = evaluate("deit", attacks=["fgsm"], limit=8, preflight=False, out="run")
    assert not grown.manifest.preflight.ran
    grown = evaluate(["deit", "deit-tw"], attacks=["fgsm"], limit=8, out="run")
    assert _looked(grown) == (False, ["deit-tw"], [])


def test_finished_samples_keep_the_look_that_was_taken():
    """A small random network guesses, which is a remark: it stays when nothing is computed, and when taken over."""
    how = {"attacks": ["fgsm"], "limit": 16, "versions": {"mine": "v1"}}
    first = evaluate({"mine": Changed()}, **how)
    assert _looked(first) == (True, ["mine"], ["accuracy"])
    assert _looked(evaluate({"mine": Changed()}, **how, preflight=False)) == _looked(first)
    other = evaluate({"mine": Changed()}, **how, preflight=False, out="other")
    assert any("taken over" in remark for remark in other.remarks)
    assert _looked(other) == _looked(first)
    more = evaluate({"mine": Changed(), "deit": "deit"}, **how, out="other")
    assert _looked(more) == (True, ["mine", "deit"], ["accuracy"])
