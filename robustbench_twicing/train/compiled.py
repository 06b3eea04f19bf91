"""torch.compile for a training, where a measurement finds it faster."""

import copy
import time
from typing import Any

import torch
from torch import nn

from robustbench_twicing.errors import UserError
from robustbench_twicing.machine.device import wait_for
from robustbench_twicing.machine.timing import in_turns
from robustbench_twicing.models.faster.compiled import cannot_be_compiled
from robustbench_twicing.train.job import Equipment, Job, MicroBatch
from robustbench_twicing.train.parts import begin_draws

AS_IT_IS, COMPILED = "as it is", "compiled"


def faster(job: Job, equipment: Equipment, network: nn.Module, micro: MicroBatch) -> dict[str, float]:
    """Seconds that a micro-batch takes forward and back, as it is and compiled, by a copy of the network.

    Raises `UserError` for a recipe whose network changes while it trains, and for one that cannot be compiled.
    """
    if job.recipe.ramp_epochs:
        raise UserError(
            f"Recipe {job.recipe.name} raises the method's strength update by update, and each would be compiled anew.",
            "Leave --compile away.",
        )
    images = micro.images.to(equipment.device)
    copied = copy.deepcopy(network)
    ways = {AS_IT_IS: copied, COMPILED: compiled(copied)}

    def seconds(way: str) -> float:
        begin_draws(job.seed, 0, 0)
        wait_for(equipment.device)
        began = time.perf_counter()
        with torch.autocast(equipment.device.type, torch.bfloat16, equipment.precision == "bfloat16"):
            ways[way](images).sum().backward()
        wait_for(equipment.device)
        return time.perf_counter() - began

    try:
        found, _ = in_turns(list(ways), seconds)
    except torch.OutOfMemoryError:
        return {AS_IT_IS: 0.0}
    except Exception as error:
        raise cannot_be_compiled(job.spec.name, error) from error
    return found


def compiled(network: nn.Module) -> Any:
    """The network as torch.compile has it, with the draws of torch itself, so that they follow the seed as ever."""
    return torch.compile(network, options={"fallback_random": True})
