"""PGD-20 on DeiT-tiny at 224, random weights and images; labels are the model's own answers, or unbreakable."""

import argparse
from collections.abc import Iterator

import torch

from attack_speed.models import answers, deit_tiny, random_images
from attack_speed.ours import own
from attack_speed.peers import bare_loops, bare_pgd, peers
from attack_speed.rates import fastest_batch
from attack_speed.task import Task, standard
from attack_speed.turns import compared


def rows(arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    device = torch.device(arguments.device)
    count = arguments.large_images or (16 if device.type == "cpu" else 256)
    pair, images = deit_tiny(device), random_images(count, 224, device)
    batch = arguments.batch or fastest_batch(pair.own, images)
    candidates = {**own(arguments), **bare_loops(bare_pgd), **peers("torchattacks", "foolbox", "ART")}
    threat = standard("pgd", "1/255")
    task = Task(*pair, images, answers(pair.own, images), threat, "deit-tiny, random weights", 1000)
    yield from compared("deit-tiny", task, candidates, arguments, batch)
    none = torch.zeros_like(task.labels)
    task = Task(*pair.unbreakable(1000), images, none, threat, "deit-tiny, unbreakable", 1000)
    yield from compared("deit-tiny", task, candidates, arguments, batch)
