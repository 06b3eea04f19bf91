"""Attacks, corruptions and whole runs on a device whose tensors refuse the CPU's; `test_other_device.py` runs it."""

import copy

import pytest
import torch

from robustbench_twicing.api import evaluate
from robustbench_twicing.data.digits import digits
from robustbench_twicing.engine.corruptions import corrupt
from robustbench_twicing.machine import device as devices
from robustbench_twicing.runner import run
from robustbench_twicing.spec.corruptions import CORRUPTIONS
from robustbench_twicing.spec.models import Recipe
from tests.engine.test_properties import ATTACKS, PER_SAMPLE, net_for
from tests.engine.tiny import attack, random_images, threat
from tests.other_device import other_device


def test_the_device_refuses_what_cuda_refuses() -> None:
    with other_device() as device:
        there, here = torch.rand(3, device=device), torch.rand(3)
        assert there.device == device
        for refused in (lambda: there + here, lambda: torch.cat((there, here)), lambda: there.numpy()):
            with pytest.raises((RuntimeError, TypeError)):
                refused()
        assert torch.equal((there + there).cpu(), 2 * there.cpu())


@pytest.mark.parametrize("name", PER_SAMPLE)
@pytest.mark.parametrize("iterate", ["best", "last"])
def test_attacks_find_the_same_images_there(name: str, iterate: str) -> None:
    settings, model, images, labels = ATTACKS[name], net_for(name), random_images(6), torch.arange(6) % 5
    wanted = threat(settings, "0.5" if settings.norm == "L2" else "8/255", iterate=iterate)
    expected = attack(model, images, labels, wanted)
    with other_device() as device:
        found = attack(copy.deepcopy(model).to(device), images.to(device), labels.to(device), wanted)
        assert {part.device for part in found} == {device}
        found = [part.cpu() for part in found]
    assert all(torch.equal(there, here) for there, here in zip(found, expected, strict=True))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corruptions_are_the_same_there(name: str) -> None:
    images = digits().read(range(3), [Recipe()]).images[Recipe()]
    expected = corrupt(images, name, 3, seed=1, ids=list("abc"), jpeg_quality=85)
    with other_device() as device:
        found = corrupt(images.to(device), name, 3, seed=1, ids=list("abc"), jpeg_quality=85)
        assert found.device == device
        found = found.cpu()
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    "settings",
    [
        {"attacks": ["pgd", "fgsm"], "worst_case": True, "eight_bit": True, "precision": "bfloat16"},
        {"attacks": ["fgsm"], "protocol": "paper"},
        {"attacks": ["bim"], "source_model": "deit"},
        {"suites": ["digits-c"], "corruptions": ["fog", "jpeg_compression"]},
    ],
    ids=lambda settings: "-".join(settings),
)
def test_a_run_says_there_what_it_says_here(settings, monkeypatch, tmp_path) -> None:
    models = ["deit-tw"] if "source_model" in settings else ["deit", "deit-tw"]
    options = {"limit": 4, **({} if "suites" in settings else {"eps": "4/255"}), **settings}
    expected = evaluate(models, out=tmp_path / "here", **options).records
    with other_device() as device:
        for place in (devices, run):
            monkeypatch.setattr(place, "choose_device", lambda _: device)
        found = evaluate(models, out=tmp_path / "there", device="other", batch_size=8, **options).records
    assert set(found["device"]) == {"other"}
    keys = ["model", "threat", "sample_id", "correct"]
    assert found[keys].equals(expected[keys])
