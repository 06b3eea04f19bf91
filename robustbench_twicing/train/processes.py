"""One process, or several that torchrun started, each with a part of every batch."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel


class Processes(NamedTuple):
    """Which of how many this one is."""

    rank: int = 0
    world: int = 1

    def shared(self, network: nn.Module) -> nn.Module:
        """The network, with its gradients averaged over the processes."""
        return DistributedDataParallel(network) if self.world > 1 else network

    def gathering(self, model: nn.Module, last: bool) -> AbstractContextManager[Any]:
        """Around a micro-batch: gradients are averaged over the processes with the last of an update."""
        if isinstance(model, DistributedDataParallel) and not last:
            return model.no_sync()
        return nullcontext()

    def summed(self, value: torch.Tensor) -> torch.Tensor:
        """The sum over all processes."""
        if self.world > 1:
            value = value.clone()
            distributed.all_reduce(value)
        return value


ALONE = Processes()


def started_by_torchrun() -> bool:
    """Whether this process is one of those that torchrun starts."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextmanager
def joined(device: torch.device) -> Iterator[tuple[Processes, torch.device]]:
    """This process among those that torchrun started, and its own device of that kind; alone if it started none."""
    if not started_by_torchrun():
        yield ALONE, device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(distributed.get_rank(), distributed.get_world_size()), device
    finally:
        distributed.destroy_process_group()
