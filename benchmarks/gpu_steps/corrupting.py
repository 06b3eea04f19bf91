"""Step `corruptions`: 95 pairs of a thousand images through two networks; and whether card and CPU make the same."""

import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn

from corruptions import photographs
from gpu_steps.job import Job, Row
from gpu_steps.speed import pair
from robustbench_twicing.engine.corruptions import corrupt
from robustbench_twicing.machine.device import wait_for
from robustbench_twicing.spec.corruptions import CORRUPTIONS

CHUNK = 250
COMPARED = 8
"""Images that are also corrupted on the CPU."""


def rows(job: Job) -> Iterator[Row]:
    scale = job.scale
    images = _as_images(photographs(scale.pictures, scale.side)).to(job.device)
    networks = [pair(scale.architectures[0], method, job.device).own.bfloat16() for method in ("softmax", "twicing")]
    names = scale.corruptions or tuple(CORRUPTIONS)
    for name in names:  # what is set up once
        corrupt(images[:2], name, scale.severities[0])
    _answered(networks, images[:CHUNK])
    spent = {name: [_both(job, images, name, severity, networks) for severity in scale.severities] for name in names}
    making, answering = (sum(both[which] for pairs in spent.values() for both in pairs) for which in (0, 1))
    yield {
        "what": f"{len(names) * len(scale.severities)} pairs of {len(images)} images, two networks in bfloat16",
        "seconds": round(making + answering, 3),
        "share_outside_networks": round(making / (making + answering), 3),
    }
    for name in names:
        if job.is_late:
            return
        ms = 1000 * sum(both[0] for both in spent[name]) / len(images) / len(scale.severities)
        yield {"what": name, "ms_per_image": round(ms, 4), **_beside_cpu(images[:COMPARED], name, scale.severities[-1])}


def _as_images(pictures: np.ndarray) -> torch.Tensor:
    return (torch.from_numpy(pictures).permute(0, 3, 1, 2).to(torch.float32) / 255).contiguous()


def _both(
    job: Job, images: torch.Tensor, name: str, severity: int, networks: Sequence[nn.Module]
) -> tuple[float, float]:
    """Seconds to corrupt all images, and for the networks' answers."""
    making = answering = 0.0
    for start in range(0, len(images), CHUNK):
        part = images[start : start + CHUNK]
        ids = [str(start + row) for row in range(len(part))]
        wait_for(job.device)
        began = time.perf_counter()
        corrupted = corrupt(part, name, severity, ids=ids)
        wait_for(job.device)
        made = time.perf_counter()
        _answered(networks, corrupted)
        wait_for(job.device)
        making, answering = making + made - began, answering + time.perf_counter() - made
    return making, answering


def _answered(networks: Sequence[nn.Module], images: torch.Tensor) -> None:
    with torch.no_grad():
        for network in networks:
            network(images.bfloat16()).argmax(1)


def _beside_cpu(images: torch.Tensor, name: str, severity: int) -> Row:
    """The CPU's time for a few images, and how far its 8-bit levels lie from the card's."""
    here = images.cpu()
    corrupt(here[:1], name, severity)
    began = time.perf_counter()
    expected = corrupt(here, name, severity)
    ms = 1000 * (time.perf_counter() - began) / len(here)
    off = ((corrupt(images, name, severity).cpu() - expected) * 255).round().abs()
    return {
        "cpu_ms_per_image": round(ms, 3),
        "cpu_threads": torch.get_num_threads(),
        "levels_off_at_most": int(off.max()),
        "share_of_values_off": round(float((off > 0).float().mean()), 6),
    }
