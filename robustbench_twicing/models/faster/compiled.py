"""A model that torch.compile has translated, for attacks to compute with. Verdicts are never taken from it."""

from importlib import import_module
from typing import Any

import torch
from torch import nn

from robustbench_twicing.errors import UserError
from robustbench_twicing.models.classifier import Classifier
from robustbench_twicing.models.guard import behind


def compiled(model: Classifier) -> Classifier:
    """`model` with its network compiled for batches of any size; weights are shared, logits differ in their last bits.

    Compilation itself waits for the first evaluation, and happens once with and once without gradients.
    """
    return model.with_network(Compiled(model.network))


def cannot_be_compiled(name: str, error: Exception) -> UserError:
    """What torch.compile and the compilers behind it raised, of many kinds, as the user is told it."""
    cause = behind(error)
    said = next(iter(str(cause).strip().splitlines()), type(cause).__name__)
    return UserError(
        f"Model {name!r} cannot be compiled: {said}",
        "Leave --compile away. On a CPU, torch.compile needs a C++ compiler (g++).",
    )


class Compiled(nn.Module):
    """A module compiled for batches of any size."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        _allow_compilations(2)  # with and without gradients
        self.network = torch.compile(network, dynamic=True)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(batch, ...) to (batch, classes)."""
        # torch.compile takes every size as a variable but 1, which it would compile anew.
        logits: torch.Tensor = self.network(images if len(images) > 1 else images.repeat(2, 1, 1, 1))
        return logits[: len(images)]


def _allow_compilations(more: int) -> None:
    """torch compiles one piece of code 8 times at most, for all models that share it, and then never again."""
    config: Any = import_module("torch._dynamo.config")  # not before it is wanted: it takes a second
    limit = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"  # until torch 2.5
    setattr(config, limit, getattr(config, limit) + more)
