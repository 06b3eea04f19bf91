"""HopSkipJump against the nearest mistake of a linear model, against foolbox, and asking for nothing but answers."""

import warnings

import pytest
import torch
from torch import nn

from robustbench_twicing.engine.projections import distance
from robustbench_twicing.spec.values import Norm
from tests.engine.tiny import answers, attack, hop_skip_jump_settings, random_images, small_net, threat
from tests.oracles.linear import TwoClassLinear

with warnings.catch_warnings():  # foolbox 3.3.4 imports from a place that SciPy is about to remove
    warnings.simplefilter("ignore", DeprecationWarning)
    import foolbox

FAR: dict[Norm, str] = {"L2": "1000", "Linf": "1"}
"""The whole range: what counts is how close the walk comes."""


class _Answers(nn.Module):
    """A model that says its answer and hides its logits; it counts what it was asked, and may be right nowhere."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.asked = network, 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.asked += len(images)
        logits: torch.Tensor = self.network(images)
        return nn.functional.one_hot(logits.argmax(1), logits.shape[1]).float()


@pytest.mark.parametrize("norm", ["L2", "Linf"])
def test_the_nearest_mistake_of_a_linear_model_is_approached(norm: Norm) -> None:
    model, images = TwoClassLinear((3, 8, 8)), random_images(12, low=0.3, high=0.7)
    labels, weight = answers(model, images), model.weight.detach()
    lead = model(images)[:, 0].detach().abs()
    nearest = lead / (weight.norm() if norm == "L2" else weight.abs().sum())
    settings = hop_skip_jump_settings(20, norm=norm, keeps="closest")
    found = attack(_Answers(model), images, labels, threat(settings, FAR[norm], iterate="best"))
    assert (answers(model, found.images) != labels).all()
    ratio = distance(found.images - images, norm) / nearest
    assert ratio.min() >= 1 - 1e-4
    assert ratio.max() < (1.06 if norm == "L2" else 1.15)  # the first probes are 10 times as far away
    start = attack(model, images, labels, threat(hop_skip_jump_settings(1, norm=norm), FAR[norm], iterate="last"))
    assert (distance(start.images - images, norm) / nearest).median() > 2


@pytest.mark.parametrize("norm", ["L2", "Linf"])
def test_it_comes_as_close_as_foolbox(norm: Norm) -> None:
    model, images = small_net(), random_images(16)
    labels = answers(model, images)
    settings = hop_skip_jump_settings(12, norm=norm, keeps="closest")
    ours = attack(model, images, labels, threat(settings, FAR[norm], iterate="best")).images
    theirs = foolbox.attacks.HopSkipJumpAttack(steps=12, constraint="l2" if norm == "L2" else "linf")
    torch.manual_seed(0)
    there = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    _, elsewhere, fooled = theirs(there, images, labels, epsilons=None)
    assert fooled.all()
    assert (answers(model, ours) != labels).all()
    # Both walk at random; ours came to 0.6 (L2) and 0.9 (L∞) of foolbox's distance in the median.
    assert (distance(ours - images, norm) / distance(elsewhere - images, norm)).median() < 1.05


def test_a_sample_leaves_with_its_first_mistake_within_eps_and_what_it_asked_is_counted() -> None:
    model, images = _Answers(small_net()), random_images(10)
    labels = answers(model.network, images)
    everything = attack(model, images, labels, threat(hop_skip_jump_settings(6), "16/255", iterate="last"))
    assert int(everything.forwards.sum()) == model.asked
    model.asked = 0
    found = attack(model, images, labels, threat(hop_skip_jump_settings(6), "16/255", iterate="best"))
    assert int(found.forwards.sum()) == model.asked
    broken = answers(model.network, found.images) != labels
    assert int(broken.sum()) > 0
    assert (found.forwards[broken] < everything.forwards[broken]).any()
    assert torch.equal(found.forwards[~broken], everything.forwards[~broken])


def test_who_finds_nothing_to_begin_at_stays_as_it_is() -> None:
    class Certain(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.tensor([1.0, 0.0]).repeat(len(images), 1)

    images, labels = random_images(3), torch.zeros(3, dtype=torch.int64)
    found = attack(Certain(), images, labels, threat(hop_skip_jump_settings(4, trials=7), iterate="best"))
    assert torch.equal(found.images, images)
    assert found.forwards.tolist() == [7] * 3
