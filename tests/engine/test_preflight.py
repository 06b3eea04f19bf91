"""Models that no attacked accuracy can be believed of are found, and a sound one is left alone."""

import pytest
import torch
from torch import nn

from robustbench_twicing.engine.contract import Queries
from robustbench_twicing.engine.preflight import Finding, preflight
from tests.engine.tiny import random_images, small_net

CLASSES = 5


class _Changed(nn.Module):
    """The small network with something done to its logits."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.net, self.how = small_net(classes=CLASSES), how

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.net(images)
        match self.how:
            case "probabilities":
                return logits.softmax(1)
            case "random":
                return logits + torch.randn_like(logits)
            case "batch":
                return logits - logits.mean(0)
            case "ignores":
                return logits * 0 + torch.arange(CLASSES)
            case "rounded":
                return self.net((images * 255).round() / 255)
            case "nan":
                return logits * torch.nan
            case "some nan":
                return logits.masked_fill((torch.arange(len(logits)) == 0)[:, None], torch.nan)
            case "steep":
                return logits + (images.sum((1, 2, 3)) * 0).sqrt()[:, None]
        return logits


def _findings(how: str, gradients: bool = True) -> list[Finding]:
    model, images = _Changed(how), random_images(40)
    labels = model.net(images).argmax(1)
    return preflight(Queries(model, 16), images, labels, gradients)


def test_nothing_is_said_of_a_sound_model() -> None:
    assert _findings("sound") == []


@pytest.mark.parametrize(
    ("how", "check"),
    [
        ("probabilities", "logits"),
        ("random", "repeatable"),
        ("batch", "batch"),
        ("ignores", "gradient"),
        ("rounded", "gradient"),
        ("steep", "gradient"),
        ("nan", "finite"),
    ],
)
def test_what_makes_every_number_meaningless_refuses_the_model(how: str, check: str) -> None:
    torch.manual_seed(0)
    refusing = [finding for finding in _findings(how) if finding.refuses]
    assert [finding.check for finding in refusing] == [check]
    assert refusing[0].says
    assert refusing[0].remedy


def test_an_attack_without_gradients_does_not_need_one() -> None:
    assert [finding.check for finding in _findings("rounded", gradients=False)] == []


def test_a_few_broken_samples_are_a_warning() -> None:
    found = _findings("some nan")
    assert ("finite", False) in [(finding.check, finding.refuses) for finding in found]
    assert not any(finding.refuses for finding in found)


def test_accuracy_that_guessing_reaches_is_a_warning() -> None:
    images = random_images(40)
    model = small_net(classes=CLASSES)
    labels = (model(images).argmax(1) + 1) % CLASSES
    assert [(f.check, f.refuses) for f in preflight(Queries(model, 16), images, labels, True)] == [("accuracy", False)]


@pytest.mark.parametrize("count", [1, 2])
def test_an_always_right_model_is_not_called_guessing_on_samples_too_few_to_tell(count: int) -> None:
    """With five classes, guessing answers two samples rightly once in 25 times: no answer could show anything."""
    images, model = random_images(count), small_net(classes=CLASSES)
    for labels in (model(images).argmax(1), (model(images).argmax(1) + 1) % CLASSES):
        assert preflight(Queries(model, 16), images, labels, True) == []


@pytest.mark.parametrize("shift", [-0.5, 0.5])
def test_normalised_images_are_refused(shift: float) -> None:
    images = random_images(4) + shift
    labels = torch.zeros(4, dtype=torch.int64)
    assert [f.check for f in preflight(Queries(small_net(), 4), images, labels, True)] == ["range"]


def test_a_label_beyond_the_models_classes_is_refused() -> None:
    labels = torch.full((4,), CLASSES)
    found = preflight(Queries(small_net(classes=CLASSES), 4), random_images(4), labels, True)
    assert [(f.check, f.refuses) for f in found] == [("classes", True)]
