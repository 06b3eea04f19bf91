"""Steps `attacks` and `compiled`: our attacks beside torchattacks, softmax and twicing, at the size of ImageNet."""

import argparse
from collections.abc import Iterator, Mapping
from itertools import product

import torch
from attack_speed.models import Pair, as_loaded, random_images
from attack_speed.ours import ours, ours_crafting_with, rounded
from attack_speed.peers import peers, torchattacks
from attack_speed.task import Candidate, Images, Task, standard
from attack_speed.turns import compared
from torch.utils.flop_counter import FlopCounterMode

from gpu_steps.job import Job, Row
from robustbench_twicing.attention.convert import apply_method
from robustbench_twicing.models.build import new_network
from robustbench_twicing.models.faster.compiled import Compiled

PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Dense bfloat16 operations a second by name of card, from NVIDIA's data sheets of the SXM forms; of no other card a
share is given."""

# name -> (attack, changed settings, what part of the images takes part, how much longer the whole attack is)
ATTACKS: Mapping[str, tuple[str, dict[str, int], int, float]] = {
    "PGD-20": ("pgd", {}, 1, 1.0),
    "SPSA 128": ("spsa", {"steps": 2}, 32, 20.0),
    "APGD-CE": ("apgd-ce", {"steps": 10}, 1, 10.0),
    "Square": ("square", {"queries": 50}, 1, 100.0),
}


LEAVING = next(iter(ATTACKS))
"""Measured once more where samples leave."""


def pair(architecture: str, method: str, device: torch.device) -> Pair:
    """Random weights; for `twicing` the other side gets timm's network with our attention in it."""
    return as_loaded(apply_method(new_network(architecture), method), device)


def torchattacks_autocast(task: Task, batch: int) -> Images:
    """What a user of torchattacks does who wants bfloat16."""
    with torch.autocast(task.device.type, torch.bfloat16):
        return torchattacks(task, batch)


def rows(job: Job) -> Iterator[Row]:
    """No sample leaves, so that every candidate evaluates as much; then PGD where samples leave, for the verdicts."""
    crafted = {"ours, crafted in bfloat16": ours_crafting_with(lambda model: rounded(model, torch.bfloat16))}
    there = {**peers("torchattacks")}
    if there:
        there = {"torchattacks": torchattacks, "torchattacks, bfloat16 autocast": torchattacks_autocast}
    candidates = {"ours": ours, **crafted, **there}
    for name, architecture, method in product(ATTACKS, job.scale.architectures, ("softmax", "twicing")):
        if job.is_late:
            return
        yield from _measured(job, name, architecture, method, candidates)
    for architecture in job.scale.architectures:
        if job.is_late:
            return
        yield from _measured(job, LEAVING, architecture, "twicing", candidates, unbreakable=False)


def compiled_rows(job: Job) -> Iterator[Row]:
    """Each compilation takes half a minute and more, so one network and one attack, in a step of their own."""
    candidates: dict[str, Candidate] = {
        "ours": ours,
        "ours, compiled, in bfloat16": ours_crafting_with(lambda model: Compiled(rounded(model, torch.bfloat16))),
    }
    for name, method in product(("PGD-20",), ("twicing", "softmax")):
        if job.is_late:
            return
        yield from _measured(job, name, job.scale.architectures[0], method, candidates)


def _measured(
    job: Job,
    name: str,
    architecture: str,
    method: str,
    candidates: Mapping[str, Candidate],
    unbreakable: bool = True,
) -> Iterator[Row]:
    attack, changes, part, scaled = ATTACKS[name]
    if job.scale.steps:
        changes = {"queries" if attack == "square" else "steps": job.scale.steps}
        changes |= {"samples": job.scale.steps} if attack == "spsa" else {}
    both = pair(architecture, method, job.device)
    classes = both.own(torch.rand(1, 3, job.scale.side, job.scale.side, device=job.device)).shape[1]
    images = random_images(max(2, job.scale.images // part), job.scale.side, job.device)
    with torch.no_grad():
        labels = torch.zeros(len(images), dtype=torch.int64, device=job.device)
        labels = labels if unbreakable else both.own(images).argmax(1)
    threat = standard(attack, "1/255", **changes)
    hard = both.unbreakable(classes) if unbreakable else both
    task = Task(*hard, images, labels, threat, f"{architecture}, {method}", classes)
    each = flops(both.own, images[:1])
    how = argparse.Namespace(turns=job.scale.turns, others=1.0)
    for row in compared(name, task, candidates, how, len(images), scaled=scaled):
        rate = float(str(row["images_per_second"])) * scaled / len(images)  # whole runs of this in a second
        forwards, backwards = int(str(row["forwards"])), int(str(row["backwards"]))
        yield {
            "what": name if unbreakable else f"{name}, samples leave",
            "variant": row["candidate"],
            "model": row["model"],
            **{key: row[key] for key in ("images_per_second", "images_per_second_lowest", "images_per_second_highest")},
            "times_ours_float32": round(1 / float(str(row["ours_over_this"])), 3),
            "evaluations_per_second": round(rate * (forwards + backwards), 1),
            "share_of_peak": share_of_peak(rate * (forwards * each[0] + backwards * each[1]), job.device),
            **{key: row[key] for key in ("forwards", "backwards", "broken", "broken_by_ours_only")},
            **{key: row[key] for key in ("broken_by_this_only", "largest_change_over_eps", "images", "scaled_by")},
        }


def flops(model: torch.nn.Module, image: Images) -> tuple[float, float]:
    """Operations of one image's forward, and of its input gradient, as torch counts matrix products."""
    pixels = image.clone().requires_grad_()
    with FlopCounterMode(display=False) as forward:
        logits = model(pixels)
    with FlopCounterMode(display=False) as backward:
        torch.autograd.grad(logits.sum(), pixels)
    return float(forward.get_total_flops()), float(backward.get_total_flops())


def share_of_peak(operations_per_second: float, device: torch.device) -> float | str:
    """Of the card's dense bfloat16 peak; "" where that is unknown."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    peak = next((peak for card, peak in PEAKS.items() if card in name), None)
    return "" if peak is None else round(operations_per_second / peak, 4)
