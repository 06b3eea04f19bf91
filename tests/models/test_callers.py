"""The caller's world is afterwards as it was: modules, torch's modes, random numbers, warnings, environment."""

import os
import random
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from robustbench_twicing.api import evaluate
from robustbench_twicing.attention.convert import apply_twicing
from robustbench_twicing.errors import UserError
from robustbench_twicing.machine.surroundings import left_alone
from robustbench_twicing.models.build import new_network
from robustbench_twicing.models.callers import as_they_were
from robustbench_twicing.models.faster.memory_format import set_memory_format
from tests.engine.tiny import small_net

HOW = {"attacks": ["fgsm"], "limit": 8}


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


class Mixed(nn.Module):
    """In training mode but for one part, partly frozen, with a gradient, a hook, and a switch of timm's set."""

    def __init__(self, broken: bool = False) -> None:
        super().__init__()
        self.net = apply_twicing(new_network("deit_digits_patch8_32"), (1,))
        self.conv = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.drop, self.broken, self.calls = nn.Dropout(0.5), broken, 0
        self.train()
        self.net.blocks[2].eval()
        self.net.head.requires_grad_(False)
        self.net.cls_token.grad = torch.ones_like(self.net.cls_token)
        self.net.blocks[0].attn.fused_attn = True
        self.net.blocks[0].register_forward_hook(self.count)

    def count(self, *_) -> None:
        self.calls += 1

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.drop(self.net(self.conv(images)))
        return logits.softmax(1) if self.broken else logits


def _state(module: nn.Module) -> list[object]:
    """Everything about a module that its owner could notice, but for what its own code counts."""
    found: list[object] = []
    for name, part in module.named_modules():
        plain = {
            key: value for key, value in vars(part).items() if isinstance(value, bool | int | str) and key != "calls"
        }
        hooks = {key: list(value) for key, value in vars(part).items() if "hook" in key and isinstance(value, dict)}
        found.append((name, type(part), id(part), plain, hooks))
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        grad = None if tensor.grad is None else id(tensor.grad)
        place = (id(tensor), tensor.data_ptr(), tensor.stride(), tensor.device, tensor.dtype, tensor.is_leaf)
        found.append((name, place, tensor.requires_grad, grad, tensor.sum().item()))
    return found


@pytest.mark.parametrize("path", ["explicit", "fused"])
def test_a_module_is_as_it_was_after_a_run(path):
    module = Mixed()
    before = _state(module)
    evaluate({"mine": module}, **HOW, attention_path=path, preflight=False)
    assert module.calls > 0, "the hook was there while it was evaluated, and what it did is not undone"
    assert _state(module) == before


def test_a_module_is_as_it_was_after_a_refusal():
    module = Mixed(broken=True)
    before = _state(module)
    with pytest.raises(UserError, match="probabilities"):
        evaluate({"mine": module}, **HOW)
    assert _state(module) == before


def test_a_module_made_in_inference_mode_is_as_it_was_and_has_no_gradient():
    with torch.inference_mode():
        module = small_net(32, classes=10)
    before = [parameter.requires_grad for parameter in module.parameters()]
    with pytest.raises(UserError, match="gives no gradient"):
        evaluate({"mine": module}, **HOW)
    assert [parameter.requires_grad for parameter in module.parameters()] == before


@pytest.mark.parametrize(
    "wrap",
    [
        lambda net: lambda images: net(images),
        lambda net: net.forward,
        nn.DataParallel,
        lambda net: torch.compile(net, backend="eager"),
    ],
    ids=["function", "method", "DataParallel", "torch.compile"],
)
def test_a_module_in_something_else_is_as_it_was(wrap):
    net = small_net(32, classes=10).train()
    wrapped = wrap(net)
    before = _state(net)
    evaluate({"mine": wrapped}, **HOW)
    assert _state(net) == before


def test_whatever_is_done_to_a_module_is_undone():
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), new_network("deit_digits_patch8_32")).train()
    before = _state(module)
    with as_they_were([module]):
        set_memory_format([module], "channels last")
        module.eval().requires_grad_(False)
        module[1].register_forward_hook(lambda *_: None)
        module[0].__class__ = nn.ConvTranspose2d
        apply_twicing(module[2])
    assert _state(module) == before


def test_what_the_models_own_code_keeps_stays():
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = small_net(32, classes=10)
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            self.seen = self.seen + len(images)
            logits: torch.Tensor = self.net(images)
            return logits

    module = Counts()
    evaluate({"mine": module}, **HOW)
    assert module.seen > 8


# --- what surrounds the call --------------------------------------------------------------------------------------


SOME = {"attacks": ["fgsm"], "limit": 8, "suites": ["digits-c"], "corruptions": ["fog"], "severities": [3]}


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> list[float]:
    """Margins of a network that is evaluated where nothing surrounds the call."""
    run = evaluate({"mine": new_network("deit_digits_patch8_32")}, **SOME, out=tmp_path_factory.mktemp("run"))
    return list(run.records["margin"])


SURROUNDINGS = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "inference_mode": torch.inference_mode,
    "no_grad": torch.no_grad,
    "set_grad_enabled": lambda: torch.set_grad_enabled(False),
    "device": lambda: torch.device("meta"),
}


@pytest.mark.parametrize("around", SURROUNDINGS)
def test_numbers_are_the_same_whatever_surrounds_the_call(around, expected):
    network = new_network("deit_digits_patch8_32")
    with SURROUNDINGS[around]():
        states = torch.is_autocast_enabled("cpu"), torch.is_inference_mode_enabled(), torch.is_grad_enabled()
        run = evaluate({"mine": network}, **SOME)
        assert states == (torch.is_autocast_enabled("cpu"), torch.is_inference_mode_enabled(), torch.is_grad_enabled())
        assert (torch.empty(1).device.type == "meta") == (around == "device")
    assert list(run.records["margin"]) == expected


def test_another_default_type_changes_no_number_and_stays(expected):
    network = new_network("deit_digits_patch8_32")
    torch.set_default_dtype(torch.float64)
    try:
        run = evaluate({"mine": network}, **SOME)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert list(run.records["margin"]) == expected


@pytest.mark.parametrize("refused", [False, True])
def test_random_numbers_warnings_and_environment_are_the_callers(monkeypatch, refused):
    class Draws(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = small_net(32, classes=10)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            np.random.rand(), torch.rand(1)  # noqa: NPY002
            warnings.filterwarnings("ignore", message="mine")
            os.environ["KMP_INIT_AT_FORK"] = "TRUE"
            return self.net(images).softmax(1) if refused else self.net(images)

    monkeypatch.setenv("KMP_DUPLICATE_LIB_OK", "FALSE")
    monkeypatch.delenv("KMP_INIT_AT_FORK", raising=False)

    def world() -> list[object]:
        state = np.random.get_state()  # noqa: NPY002
        environment = {key: value for key, value in os.environ.items() if key.startswith("KMP_")}
        drawn = [state[1].tolist(), state[2], torch.get_rng_state().tolist()]
        return [*drawn, list(warnings.filters), environment]

    before = world()
    try:
        evaluate({"mine": Draws()}, **HOW)
        assert not refused
    except UserError:
        assert refused
    assert world() == before


def test_pythons_own_random_numbers_are_the_callers():
    """By itself, as the type checks of the tests draw from them too."""
    before = random.getstate()
    with left_alone():
        random.random()
    assert random.getstate() == before
