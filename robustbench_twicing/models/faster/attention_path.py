"""Which attention path is the fastest here, by measurement."""

import time
from collections.abc import Sequence
from typing import TypedDict

import torch
from torch import nn

from robustbench_twicing.attention.paths import choose_path, set_attention_path
from robustbench_twicing.machine.device import wait_for
from robustbench_twicing.machine.timing import first_unless_slower, in_turns
from robustbench_twicing.tensors import Images


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
