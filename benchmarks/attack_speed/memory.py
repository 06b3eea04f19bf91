"""Peak memory of PGD on some images beside that of one forward and input gradient of all of them."""

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from itertools import accumulate

import torch
from torch.profiler import ProfilerActivity, profile

from attack_speed.models import Pair, deit_tiny, digits_pair, random_images
from attack_speed.ours import ours
from attack_speed.peers import bare_pgd, input_gradient, peers
from attack_speed.task import Candidate, Images, Task, standard


def rows(arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    device = torch.device(arguments.device)
    large = 16 if device.type == "cpu" else 256
    models: dict[str, tuple[Pair, Images, int]] = {
        "digits deit, unbreakable": (digits_pair(device), random_images(256, 32, device), 10),
        "deit-tiny, unbreakable": (deit_tiny(device), random_images(large, 224, device), 1000),
    }
    for name, (pair, images, classes) in models.items():
        labels = torch.zeros(len(images), dtype=torch.int64, device=device)
        threat = standard("pgd", "1/255", steps=3)
        own_network = pair.unbreakable(classes).own
        task = Task(own_network, own_network, images, labels, threat, name, classes)
        works: dict[str, tuple[Candidate, int]] = {
            "one forward and gradient": (lambda task, _: input_gradient(task.model, task.images, task.labels), 0),
            "ours": (ours, len(images)),
            "bare loop": (bare_pgd, len(images)),
            **{name: (run, 0) for name, run in peers("torchattacks").items()},
            "ours, in quarters": (ours, len(images) // 4),
        }
        peaks = {what: peak(partial(run, task, batch), device) for what, (run, batch) in works.items()}
        for what, (_, batch) in works.items():
            yield {
                "measurement": "memory",
                "model": name,
                "candidate": what,
                "batch": batch or len(images),
                "images": len(images),
                "peak_mib": round(peaks[what] / 2**20, 1),
                "peak_over_forward_and_gradient": round(peaks[what] / peaks["one forward and gradient"], 3),
            }


def peak(run: Callable[[], Images], device: torch.device) -> int:
    """Bytes that torch's allocator hands out at the same time, beyond those of before."""
    run()  # what is set up once
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return int(torch.cuda.max_memory_allocated()) - int(before)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    return int(max(accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()))))
