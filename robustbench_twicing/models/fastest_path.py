"""Which attention path is the fastest here, by measurement."""

import time
from collections.abc import Sequence
from typing import TypedDict

import torch
from torch import nn

from robustbench_twicing.models.attention import choose_path, set_attention_path
from robustbench_twicing.tensors import Images

_MIN_ROUNDS, _MAX_ROUNDS, _ENOUGH_SECONDS = 2, 8, 0.25
_MIN_GAIN = 0.05
"""A path other than the device's usual one must be this much faster, so that noise does not change a run's numbers."""


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
    paths = (usual, "fused" if usual == "explicit" else "explicit")
    fastest = dict.fromkeys(paths, float("inf"))
    measured, rounds = 0.0, -1
    while rounds < _MIN_ROUNDS or (rounds < _MAX_ROUNDS and measured < _ENOUGH_SECONDS):
        for path in paths:
            for model in models:
                set_attention_path(model, path)
            seconds = _seconds(models, images, gradient)
            if rounds >= 0:  # the one before is a warm-up
                fastest[path] = min(fastest[path], seconds)
                measured += seconds
        rounds += 1
    chosen = min(paths, key=lambda path: fastest[path] * (1 if path == usual else 1 + _MIN_GAIN))
    for model in models:
        set_attention_path(model, chosen)
    return {"path": chosen, "seconds": fastest, "rounds": rounds, "images": len(images), "gradient": gradient}


def _seconds(models: Sequence[nn.Module], images: torch.Tensor, gradient: bool) -> float:
    """One pass of `images` through every model, and back if `gradient`."""
    _wait_for(images.device)
    start = time.perf_counter()
    for model in models:
        pixels = images.detach().clone().requires_grad_(gradient)
        with torch.set_grad_enabled(gradient):
            logits = model(pixels)
        if gradient:
            torch.autograd.grad(logits.sum(), pixels)
    _wait_for(images.device)
    return time.perf_counter() - start


def _wait_for(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
