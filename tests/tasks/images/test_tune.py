"""Batch sizes: found within the device's memory, halved when it runs out, without a result lost."""

import pytest
import torch
from torch import nn

from robustbench_twicing.api import evaluate
from robustbench_twicing.errors import UserError
from robustbench_twicing.models.classifier import Classifier
from robustbench_twicing.models.intake import wrap_model
from robustbench_twicing.results.store import RunFolder
from robustbench_twicing.results.used import Settled
from robustbench_twicing.tasks.images import tune
from robustbench_twicing.tasks.images.attack import Attacks, Roles
from robustbench_twicing.tasks.images.tune import (
    find_batch_size,
    settle_attention,
    settle_compilation,
    settle_memory_format,
)
from tests.engine.tiny import random_images, small_net
from tests.tasks.images.test_attack import PGD, _samples


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


def test_a_device_that_has_no_memory_for_a_measurement_goes_without() -> None:
    model, cpu = _model(most=2, size=72), torch.device("cpu")
    assert settle_attention([model], cpu, True, None) == Settled(choice="auto")
    assert settle_memory_format([model], cpu, True, None).choice == "contiguous"
    assert find_batch_size(model, cpu, gradients=True) >= 1


def test_small_models_on_a_cpu_are_not_measured() -> None:
    model = _model(most=2)
    model.network.module.seen.clear()
    assert find_batch_size(model, torch.device("cpu"), gradients=True) == 256
    assert model.network.module.seen == []


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


def test_little_memory_is_enough_for_the_preflight(tmp_path) -> None:
    class Little(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            if len(images) > 2:
                raise torch.cuda.OutOfMemoryError("out of memory")
            logits: torch.Tensor = self.net(images)
            return logits

    run = evaluate({"m": Little()}, attacks=["fgsm"], limit=6, out=tmp_path)
    assert len(run.records) == 12  # and the clean ones
    assert RunFolder(tmp_path).manifest().preflight.ran


def test_no_memory_for_a_single_image_is_said_clearly() -> None:
    model = _model(most=1000)
    samples = _samples(model, random_images(4))
    clean = samples.judged(model(samples.images).detach())
    model.network.module.most = 0
    with pytest.raises(UserError, match="out of memory with a single image"):
        Attacks(seed=0)(Roles(model, model, model), PGD, samples, clean, lambda evaluations: None)


def test_a_model_of_other_classes_than_the_data_set_is_refused() -> None:
    with pytest.raises(UserError, match="has 5 classes, data set 'digits' has 10"):
        evaluate({"m": small_net(32)}, attacks=["fgsm"], limit=2)


def _formats(*models: Classifier) -> set[bool]:
    """Whether the convolutions of `models` lie channels last."""
    layers = [m for model in models for m in model.network.modules() if isinstance(m, nn.Conv2d)]
    return {layer.weight.is_contiguous(memory_format=torch.channels_last) for layer in layers}


def _convolutional(size: int, *more: nn.Module) -> Classifier:
    last = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)]
    return wrap_model("c", nn.Sequential(nn.Conv2d(3, 8, 3), *more, *last), size)


@pytest.mark.parametrize(("gain", "choice"), [(0.5, "channels last"), (1.5, "contiguous")])
def test_all_convolutions_lie_as_is_faster_for_them_together(monkeypatch, gain: float, choice: str) -> None:
    models = [_convolutional(72), _convolutional(72), _model(most=10**6, size=72)]
    monkeypatch.setattr(tune, "_seconds", lambda model, *_: gain if _formats(models[0]) == {True} else 1.0)
    for model in models[:2]:
        assert _formats(model) == {False}
    convolutional = sum(bool(_formats(model)) for model in models)
    says = settle_memory_format(models, torch.device("cpu"), True, None)
    measured = {"contiguous": convolutional, "channels last": convolutional * gain}
    assert says == Settled(choice=choice, seconds=measured)
    assert _formats(*models[:2]) == {choice == "channels last"}
    assert settle_memory_format(models, torch.device("cpu"), True, "channels last") == Settled(choice="channels last")
    assert _formats(*models[:2]) == {True}


def test_small_images_on_a_cpu_keep_the_memory_format() -> None:
    assert settle_memory_format([_convolutional(32)], torch.device("cpu"), True, None) == Settled(choice="contiguous")


def test_a_network_that_channels_last_breaks_keeps_its_memory_format() -> None:
    class Views(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.view(len(x), -1)[..., None, None].reshape(len(x), 8, -1, 1)

    model = _convolutional(72, Views())
    says = settle_memory_format([model], torch.device("cpu"), True, None)
    assert says.choice == "contiguous"
    assert "view" in says.reason
    assert _formats(model) == {False}


class _Same:
    """In torch.compile's place: the model itself, remembered."""

    def __init__(self) -> None:
        self.seen: list[Classifier] = []

    def __call__(self, model: Classifier) -> Classifier:
        shadow = Classifier(model.network, model.card, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        self.seen.append(shadow)
        return shadow


@pytest.mark.parametrize(("gain", "choice"), [(0.5, "compiled"), (1.5, "as loaded")])
def test_all_models_are_compiled_if_that_is_faster_for_them_together(monkeypatch, gain: float, choice: str) -> None:
    same = _Same()
    monkeypatch.setattr(tune, "compiled", same)
    monkeypatch.setattr(tune, "_seconds", lambda model, *_: gain if model in same.seen else 1.0)
    models = {name: _model(most=10**6) for name in "ab"}
    found, says = settle_compilation(models, torch.device("cpu"), True, None)
    assert says.choice == choice
    assert says.seconds == {"as loaded": 2.0, "compiled": 2 * gain}
    assert list(found.values()) == (same.seen if choice == "compiled" else list(models.values()))


def test_a_choice_that_was_made_is_kept(monkeypatch) -> None:
    same = _Same()
    monkeypatch.setattr(tune, "compiled", same)
    models = {"a": _model(most=10**6)}
    assert settle_compilation(models, torch.device("cpu"), True, "as loaded")[0] == models
    assert same.seen == []
    found, says = settle_compilation(models, torch.device("cpu"), True, "compiled")
    assert list(found.values()) == same.seen
    assert says.choice == "compiled"


def test_a_model_that_cannot_be_compiled_is_said_so(monkeypatch) -> None:
    class Refuses(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no compiler\nwith many lines")

    def refuse(model: Classifier) -> Classifier:
        return Classifier(Refuses(), model.card, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

    monkeypatch.setattr(tune, "compiled", refuse)
    with pytest.raises(UserError, match=r"'m' cannot be compiled: no compiler\n"):
        settle_compilation({"a": _model(most=10**6)}, torch.device("cpu"), True, None)


def test_a_compiled_run_has_the_verdicts_of_one_that_is_not(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(tune, "compiled", _Same())
    monkeypatch.setattr(tune, "_seconds", lambda model, *_: 1.0 if model.card.spec.name else 0.0)
    options = {"attacks": ["pgd"], "eps": "4/255", "limit": 16}
    plain = evaluate("deit", out=tmp_path / "plain", **options)
    allowed = evaluate("deit", out=tmp_path / "allowed", compiles=True, **options)
    assert allowed.records["correct"].equals(plain.records["correct"])
    assert allowed.manifest.means.compilation.choice == "as loaded"
    assert plain.manifest.means.compilation == Settled(choice="as loaded")
