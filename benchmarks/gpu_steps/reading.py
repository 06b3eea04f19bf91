"""Step `decode`: whether the loader keeps the card busy; images a second from JPEGs of 500 x 375, beside timm's."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from decode import BATCH, MODEL, timm_loader, write_jpegs
from torch import nn

from gpu_steps.job import Job, Row
from gpu_steps.speed import pair
from robustbench_twicing.data.imagenet import ImageFiles
from robustbench_twicing.data.passes import read_ahead
from robustbench_twicing.machine.device import wait_for

Batches = Iterable[torch.Tensor]


def rows(job: Job) -> Iterator[Row]:
    networks = [pair(name, "twicing", job.device).own.bfloat16() for name in job.scale.architectures[:1]]
    side = job.scale.side
    crop = torch.rand(BATCH, 3, side, side, device=job.device).bfloat16()
    _answered(networks, crop)
    with TemporaryDirectory() as folder:
        dataset = write_jpegs(Path(folder), job.scale.jpegs, (500, 375))
        ways: dict[str, Callable[[], Batches]] = {
            "ours": lambda: _ours(dataset, job.scale.workers),
            "timm's loader": lambda: (images for images, _ in timm_loader(dataset, job.scale.workers, False)),
        }
        for name, batches in ways.items():
            for feeding in (False, True):
                if job.is_late:
                    return
                yield _pass(job, name, batches(), networks if feeding else [])


def _ours(dataset: ImageFiles, workers: int) -> Batches:
    shards = [range(start, min(start + BATCH, len(dataset.labels))) for start in range(0, len(dataset.labels), BATCH)]
    return (batch.images[MODEL] for batch in read_ahead(dataset, shards, [MODEL], workers))


def _pass(job: Job, name: str, batches: Batches, networks: Sequence[nn.Module]) -> Row:
    """One pass, the workers' start included. `waiting`: share of the time without a batch to work on."""
    began = asked = time.perf_counter()
    waiting, seen = 0.0, 0
    for images in batches:
        waiting += time.perf_counter() - asked
        if networks:
            there = images.to(job.device).bfloat16()
            _answered(networks, there[..., : job.scale.side, : job.scale.side])
            wait_for(job.device)
        seen += len(images)
        asked = time.perf_counter()
    seconds = time.perf_counter() - began
    return {
        "what": "loader feeding a network" if networks else "loader alone",
        "variant": name,
        "images_per_second": round(seen / seconds, 1),
        "waiting": round(waiting / seconds, 3),
        "images": seen,
        "workers": job.scale.workers,
    }


def _answered(networks: Sequence[nn.Module], images: torch.Tensor) -> None:
    with torch.no_grad():
        for network in networks:
            network(images).argmax(1)
