"""Which of several ways to do the same is the fastest here, by measurement; first of all, which attention path."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypedDict

import torch
from torch import nn

from robustbench_twicing.models.attention import choose_path, set_attention_path
from robustbench_twicing.tensors import Images

_MIN_ROUNDS, _MAX_ROUNDS, _ENOUGH_SECONDS = 2, 8, 0.25
_MIN_GAIN = 0.05
"""Another way than the usual one must be this much faster, so that noise does not change a run's numbers."""


class PathChoice(TypedDict):
    """What `use_fastest_path` measured and chose; goes into the manifest as it is."""

    path: str
    """"explicit" or "fused"."""
    seconds: dict[str, float]
    """For each path, of the fastest round: all models on all images, forward and, if `gradient`, backward."""
    rounds: int
    images: int
    gradient: bool


def use_fastest_path(models: Sequence[nn.Module], images: Images, gradient: bool = True) -> PathChoice:
    """Put all `models` on the attention path that is the fastest for them together, and say what was measured.

    The models, in eval mode, run on `images`, which are on their device, along each path in turns: once to warm up and
    then two to eight times, until a quarter of a second has been measured. All get the same path, so that models
    compared differ in nothing else. For small models this takes about half a second; for others six passes. Without
    an attention of timm's in them, both paths are the same and the device's usual one is named.
    """
    usual = choose_path("auto", images.device, dropout=0.0)

    def use(path: str) -> None:
        for model in models:
            set_attention_path(model, path)

    def seconds(path: str) -> float:
        use(path)
        return _seconds(models, images, gradient)

    fastest, rounds = in_turns((usual, "fused" if usual == "explicit" else "explicit"), seconds)
    chosen = first_unless_slower(fastest)
    use(chosen)
    return {"path": chosen, "seconds": fastest, "rounds": rounds, "images": len(images), "gradient": gradient}


def in_turns(ways: Sequence[str], seconds: Callable[[str], float]) -> tuple[dict[str, float], int]:
    """Of each way to do the same work the `seconds` of its fastest round, and how many rounds counted.

    Each round takes all ways in turns. The first one warms up; two to eight more follow, until a quarter of a second
    has been measured.
    """
    fastest = dict.fromkeys(ways, float("inf"))
    measured, rounds = 0.0, -1
    while rounds < _MIN_ROUNDS or (rounds < _MAX_ROUNDS and measured < _ENOUGH_SECONDS):
        for way in ways:
            took = seconds(way)
            if rounds >= 0:
                fastest[way] = min(fastest[way], took)
                measured += took
        rounds += 1
    return fastest, rounds


def first_unless_slower(seconds: Mapping[str, float]) -> str:
    """The fastest way, where the first one, which is the usual one, gets the benefit of the doubt."""
    usual = next(iter(seconds))
    return min(seconds, key=lambda way: seconds[way] * (1 if way == usual else 1 + _MIN_GAIN))


def _seconds(models: Sequence[nn.Module], images: torch.Tensor, gradient: bool) -> float:
    """One pass of `images` through every model, and back if `gradient`."""
    wait_for(images.device)
    start = time.perf_counter()
    for model in models:
        pixels = images.detach().clone().requires_grad_(gradient)
        with torch.set_grad_enabled(gradient):
            logits = model(pixels)
        if gradient:
            torch.autograd.grad(logits.sum(), pixels)
    wait_for(images.device)
    return time.perf_counter() - start


def wait_for(device: torch.device) -> None:
    """Until it has done what it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
