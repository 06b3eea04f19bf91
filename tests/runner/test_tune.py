"""Batch sizes: found within the device's memory, halved when it runs out, without a result lost."""

import pytest
import torch
from torch import nn

from robustbench_twicing.api import evaluate
from robustbench_twicing.errors import UserError
from robustbench_twicing.models.build import wrap_model
from robustbench_twicing.models.classifier import Classifier
from robustbench_twicing.runner.attack import Attacks, Roles
from robustbench_twicing.runner.tune import find_batch_size
from tests.engine.tiny import random_images, small_net
from tests.runner.test_attack import PGD, _samples


class _LittleMemory(nn.Module):
    """Runs out of memory with more than `most` images at once, and remembers what it was given."""

    def __init__(self, most: int, size: int = 8) -> None:
        super().__init__()
        self.net, self.most, self.seen = small_net(size), most, list[int]()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(images))
        if len(images) > self.most:
            raise torch.cuda.OutOfMemoryError("out of memory")
        logits: torch.Tensor = self.net(images)
        return logits


def _model(most: int, size: int = 8) -> Classifier:
    return wrap_model("m", _LittleMemory(most, size), size)


def test_the_search_stays_within_the_memory() -> None:
    model = _model(most=16, size=72)
    assert find_batch_size(model, torch.device("cpu"), gradients=True) <= 16


def test_small_models_on_a_cpu_are_not_measured() -> None:
    model = _model(most=2)
    model.network.seen.clear()
    assert find_batch_size(model, torch.device("cpu"), gradients=True) == 256
    assert model.network.seen == []


def test_a_device_without_memory_halves_the_batch_for_good_and_loses_nothing() -> None:
    whole, little = _model(most=1000), _model(most=3)
    outcomes = []
    for model in (whole, little):
        samples = _samples(whole, random_images(20))
        with torch.no_grad():
            clean = samples.judged(whole(samples.images))
        model.batch_size = 16
        outcomes.append(Attacks(seed=0)(Roles(model, model, model), PGD, samples, clean, lambda evaluations: None))
    assert little.batch_size == 2
    assert (outcomes[0].judgement.correct == outcomes[1].judgement.correct).all()
    assert (outcomes[0].spent == outcomes[1].spent).all()


def test_no_memory_for_a_single_image_is_said_clearly() -> None:
    model = _model(most=1000)
    samples = _samples(model, random_images(4))
    clean = samples.judged(model(samples.images).detach())
    model.network.most = 0
    with pytest.raises(UserError, match="out of memory with a single image"):
        Attacks(seed=0)(Roles(model, model, model), PGD, samples, clean, lambda evaluations: None)


def test_a_model_of_other_classes_than_the_data_set_is_refused() -> None:
    with pytest.raises(UserError, match="has 5 classes, data set 'digits' has 10"):
        evaluate({"m": small_net(32)}, attacks=["fgsm"], limit=2)
