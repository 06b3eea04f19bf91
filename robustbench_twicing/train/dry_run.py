"""What a training would take, from a few micro-batches of it."""

import resource
import sys
import time
from typing import NamedTuple

import torch

from robustbench_twicing.machine.device import wait_for
from robustbench_twicing.machine.surroundings import left_alone, plain_torch
from robustbench_twicing.train.adversarial import attacked
from robustbench_twicing.train.job import Equipment, Job, MicroBatch, share_of
from robustbench_twicing.train.parts import average_of, begin_draws, loss_of, mixing_of, network_of, optimizer_of

_IMAGES = 32
"""Of a probe, at most."""


class Estimate(NamedTuple):
    """Of one training on one process. Test images are not in it."""

    updates: int
    images: int
    """Of all epochs."""
    micro_batch: int
    computed_per_second: float
    """Images that the device takes forward and back, and the update after them."""
    read_per_second: float
    """Images that all workers together read and augment, if they do not disturb the device."""
    workers: int
    memory_bytes: int
    """The most that was in use: of the device's memory, on a CPU of this process."""
    disk_bytes: int
    """Two checkpoints, and the weights."""

    @property
    def images_per_second(self) -> float:
        """The slower of both; one after the other where no worker reads ahead."""
        if self.workers:
            return min(self.computed_per_second, self.read_per_second)
        return 1 / (1 / self.computed_per_second + 1 / self.read_per_second)

    @property
    def seconds(self) -> float:
        """All epochs."""
        return self.images / self.images_per_second if self.images else 0.0


def estimated(job: Job, equipment: Equipment) -> Estimate:
    """Take two micro-batches of at most 32 images through the network, the second one by the clock.

    Raises `UserError` as a training would.
    """
    share = share_of(job, equipment)
    micro_batch = job.recipe.batch // share.micro_batches
    with left_alone(), plain_torch():
        network = network_of(job).to(equipment.device)
        optimizer, average = optimizer_of(job.recipe, network), average_of(job.recipe, network)
        feed = iter(job.data.feed(job, network, share._replace(workers=0), 0))
        micro = next(feed)  # which opens the data set, too
        began = time.perf_counter()
        micro = next(feed, micro)
        reading = (time.perf_counter() - began) / len(micro.labels)
        probe = MicroBatch(micro.images[:_IMAGES], micro.labels[:_IMAGES])
        seconds = [_step(job, equipment, network, optimizer, probe) for _ in range(2)][-1]
    size = sum(tensor.nbytes for tensor in network.state_dict().values())
    sets = 1 + (average is not None)
    return Estimate(
        updates=job.updates,
        images=job.updates * job.recipe.batch,
        micro_batch=micro_batch,
        computed_per_second=len(probe.labels) / seconds,
        read_per_second=max(1, equipment.workers) / reading,
        workers=equipment.workers,
        memory_bytes=_memory(equipment.device),
        disk_bytes=size * (2 * (sets + 2) + sets),
    )


def _step(
    job: Job, equipment: Equipment, network: torch.nn.Module, optimizer: torch.optim.Optimizer, micro: MicroBatch
) -> float:
    device, mix = equipment.device, mixing_of(job)
    wait_for(device)
    began = time.perf_counter()
    begin_draws(job.seed, 0, 0)
    images, targets = micro.images.to(device), micro.labels.to(device)
    if job.recipe.adversarial is not None:
        images = attacked(job, network, images, targets, (0, 0), 1)
    if mix is not None:
        images, targets = mix(images, targets)
    with torch.autocast(device.type, torch.bfloat16, equipment.precision == "bfloat16"):
        loss_of(job.recipe, network(images), targets).backward()
    optimizer.step()
    optimizer.zero_grad()
    wait_for(device)
    return time.perf_counter() - began


def _memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024
