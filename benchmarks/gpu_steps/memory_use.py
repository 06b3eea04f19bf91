"""Step `memory`: the largest batch that is worth it, and the peak over one forward and input gradient of it."""

from collections.abc import Iterator
from functools import partial
from itertools import product

import torch
from attack_speed.memory import peak
from attack_speed.peers import input_gradient

from gpu_steps.job import Job, Row
from gpu_steps.speed import pair
from robustbench_twicing.models.intake import wrap_model
from robustbench_twicing.tasks.images.tune import find_batch_size


def rows(job: Job) -> Iterator[Row]:
    for architecture, method in product(job.scale.architectures, ("softmax", "twicing")):
        if job.is_late:
            return
        network, side = pair(architecture, method, job.device).own, job.scale.side
        batch = find_batch_size(wrap_model("model", network, side, device=job.device), job.device, gradients=True)
        images = torch.rand(batch, 3, side, side, device=job.device)
        labels = torch.zeros(batch, dtype=torch.int64, device=job.device)
        held = peak(partial(input_gradient, network, images, labels), job.device)
        yield {
            "what": "one forward and input gradient, float32",
            "model": f"{architecture}, {method}",
            "batch": batch,
            "peak_mib": round(held / 2**20, 1),
            "mib_per_image": round(held / 2**20 / batch, 2),
        }
