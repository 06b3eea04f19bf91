"""Step `profiles`: what the card does in a few steps of PGD and in a chunk of SPSA: kernels, launches, gaps."""

import gzip
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from attack_speed.models import random_images
from attack_speed.ours import attacked_by_ours, rounded
from attack_speed.task import Task, standard
from torch.profiler import ProfilerActivity, profile

from gpu_steps.job import Job, Row
from gpu_steps.speed import pair
from robustbench_twicing.machine.device import wait_for

TOP = 5
"""Kernels that get a row; the text file has 30."""


def rows(job: Job) -> Iterator[Row]:
    both = pair(job.scale.architectures[0], "twicing", job.device)
    classes = both.own(torch.rand(1, 3, job.scale.side, job.scale.side, device=job.device)).shape[1]
    hard = both.unbreakable(classes).own
    for attack, steps, count in (("pgd", 5, job.scale.images), ("spsa", 1, max(2, job.scale.images // 64))):
        for dtype in (torch.bfloat16, torch.float32) if job.is_cuda else (torch.float32,):
            model = hard if dtype == torch.float32 else rounded(hard, dtype)
            images = random_images(count, job.scale.side, job.device)
            labels = torch.zeros(count, dtype=torch.int64, device=job.device)
            changes = {"steps": steps} | ({"samples": job.scale.steps} if job.scale.steps and attack == "spsa" else {})
            threat = standard(attack, "1/255", **changes)
            task = Task(hard, hard, images, labels, threat, "", classes)
            attacked_by_ours(task, model, count)
            wait_for(job.device)
            name = f"{attack}-{str(dtype).removeprefix('torch.')}"
            kinds = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if job.is_cuda else [])
            with profile(activities=kinds) as profiler:
                attacked_by_ours(task, model, count)
                wait_for(job.device)
            yield from _summarised(job, name, profiler, steps, count)


def _summarised(job: Job, name: str, profiler: Any, steps: int, count: int) -> Iterator[Row]:
    column = "self_cuda_time_total" if job.is_cuda else "self_cpu_time_total"
    averages = profiler.key_averages()
    (job.out / f"profile-{name}.txt").write_text(averages.table(sort_by=column, row_limit=30))
    if name == "pgd-bfloat16":  # one trace: traces are large
        with TemporaryDirectory() as folder:
            trace = Path(folder) / "trace.json"
            profiler.export_chrome_trace(str(trace))
            (job.out / f"trace-{name}.json.gz").write_bytes(gzip.compress(trace.read_bytes()))
    spans = kernel_spans(profiler)
    row: Row = {"what": name, "images": count, "steps": steps}
    if not spans:
        yield row | {"launches_per_step": "", "busy": "", "note": "no kernels: not on a card"}
        return
    busy, whole = covered([span for _, *span in spans])
    yield row | {"launches_per_step": round(len(spans) / steps, 1), "busy": round(busy / whole, 3)}
    times: dict[str, float] = {}
    for kernel, start, end in spans:
        times[kernel] = times.get(kernel, 0.0) + end - start
    for kernel, spent in sorted(times.items(), key=lambda item: -item[1])[:TOP]:
        yield {"what": name, "variant": kernel[:80], "share_of_busy": round(spent / sum(times.values()), 3)}


def kernel_spans(profiler: Any) -> list[tuple[str, float, float]]:
    """Of everything that the card did: name, start and end in nanoseconds."""
    events = profiler.profiler.kineto_results.events()
    return [
        (event.name(), event.start_ns(), event.start_ns() + event.duration_ns())
        for event in events
        if event.device_type().name == "CUDA" and event.duration_ns() > 0
    ]


def covered(spans: list[list[float]]) -> tuple[float, float]:
    """How long at least one span lasted, and from the first start to the last end."""
    busy, reached = 0.0, min(start for start, _ in spans)
    first = reached
    for start, end in sorted(spans):
        busy += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return busy, reached - first
