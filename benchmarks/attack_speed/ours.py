"""Our candidates: the engine as it is, and crafting in another precision or compiled."""

import argparse
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import cache

import torch
from torch import nn

from attack_speed.models import Counted
from attack_speed.task import Candidate, Images, Task
from robustbench_twicing.engine.algorithms import ALGORITHMS
from robustbench_twicing.engine.contract import Queries
from robustbench_twicing.models.faster.compiled import Compiled
from robustbench_twicing.seeding import Draws


def ours(task: Task, batch: int) -> Images:
    return attacked_by_ours(task, task.model, batch)


def ours_crafting_with(changed: Callable[[nn.Module], nn.Module]) -> Candidate:
    """Ours, with a changed network while the attack looks for its images; the change itself is not timed.

    As `--precision` and `--compile`: what that network takes for broken and float32 does not is attacked again.
    """
    changed = cache(changed)

    def run(task: Task, batch: int) -> Images:
        assert isinstance(task.model, Counted)
        lower = Counted(changed(task.model.model))
        found = attacked_by_ours(task, lower, batch)
        again = Queries(lower, batch)(found).argmax(1) != task.labels
        if again.any():  # the tool knows float32's verdict here, which is on nobody's clock
            again[again.clone()] = Queries(task.model, batch)(found[again]).argmax(1) == task.labels[again]
        if again.any():
            rest = replace(task, images=task.images[again], labels=task.labels[again])
            found[again] = attacked_by_ours(rest, task.model, batch)
        task.model.calls += lower.calls
        task.model.forwards += lower.forwards
        task.model.backwards += lower.backwards
        return found

    return run


class Rounded(nn.Module):
    """A network in a lower precision between float32 images and float32 logits."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.model = model
        self.dtype = dtype

    def forward(self, images: Images) -> torch.Tensor:
        logits: torch.Tensor = self.model(images.to(self.dtype))
        return logits.float()


def rounded(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    return Rounded(deepcopy(model).to(dtype), dtype)


def attacked_by_ours(task: Task, model: nn.Module, batch: int) -> Images:
    draws = Draws(0, tuple(f"image-{row}" for row in range(len(task.images))), task.threat.id)
    algorithm = ALGORITHMS[task.threat.settings.algorithm]
    queries = Queries(model, batch)
    return algorithm(queries, task.images, task.labels, task.threat, draws).images


def own(arguments: argparse.Namespace) -> dict[str, Candidate]:
    """Ours, and ours crafting in the precision that was asked for, and compiled."""
    candidates: dict[str, Candidate] = {"ours": ours}
    if arguments.craft:
        dtype = getattr(torch, arguments.craft)
        candidates[f"ours, crafted in {arguments.craft}"] = ours_crafting_with(lambda model: rounded(model, dtype))
    if arguments.compile:
        candidates["ours, compiled"] = ours_crafting_with(Compiled)
    if arguments.craft and arguments.compile:
        candidates[f"ours, compiled, in {arguments.craft}"] = ours_crafting_with(
            lambda model: Compiled(rounded(model, dtype))
        )
    return candidates
