"""The measured choice of a path; what is slow here is made slow on purpose, so that no timing decides a test."""

import json
import time

import pytest
import torch
from torch import nn

from robustbench_twicing import apply_twicing
from robustbench_twicing.attention import paths as attention
from robustbench_twicing.attention.convert import apply_softmax
from robustbench_twicing.models.build import new_network
from robustbench_twicing.models.faster.attention_path import use_fastest_path


def models() -> list[nn.Module]:
    plain, twicing = (new_network("deit_digits_patch8_32").eval() for _ in range(2))
    return [apply_softmax(plain), apply_twicing(twicing)]


def images() -> torch.Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def paths(models: list[nn.Module]) -> set[str]:
    return {module.path for model in models for module in model.modules() if hasattr(module, "path")}


@pytest.mark.parametrize("gradient", [True, False])
@pytest.mark.parametrize(
    ("slow", "fast"), [("packed_attention", "fused"), ("fused_attention", "explicit")], ids=["explicit", "fused"]
)
def test_avoids_the_slow_path_in_every_model(monkeypatch, slow, fast, gradient):
    function = getattr(attention, slow)

    def slowly(*args, **kwargs):
        time.sleep(0.01)
        return function(*args, **kwargs)

    monkeypatch.setattr(attention, slow, slowly)
    both = models()
    choice = use_fastest_path(both, images(), gradient)
    assert choice["path"] == fast
    assert paths(both) == {fast}
    assert choice["seconds"][fast] == min(choice["seconds"].values())
    assert json.loads(json.dumps(choice)) == choice
    assert set(choice["seconds"]) == {"explicit", "fused"}
    assert (choice["images"], choice["gradient"]) == (2, gradient)


def test_leaves_images_and_weights_without_gradients():
    both, pixels = models(), images()
    use_fastest_path(both, pixels)
    assert pixels.grad is None
    assert not pixels.requires_grad
    assert all(parameter.grad is None for model in both for parameter in model.parameters())


def test_a_model_without_attention_keeps_the_usual_path():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    choice = use_fastest_path([model], images())
    assert choice["path"] in choice["seconds"]
