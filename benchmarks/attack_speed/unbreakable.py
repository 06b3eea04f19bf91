"""PGD-20 where no sample leaves early: what the engine costs beside the model."""

import argparse
from collections.abc import Iterator

import torch

from attack_speed.models import digit_images, digits_pair
from attack_speed.ours import own
from attack_speed.peers import bare_loops, bare_pgd, peers
from attack_speed.rates import fastest_batch
from attack_speed.task import Task, standard
from attack_speed.turns import compared


def rows(arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    device = torch.device(arguments.device)
    pair = digits_pair(device)
    images, labels = digit_images(arguments.images, pair.own, device)
    hard = pair.unbreakable(10)
    none, threat = torch.zeros_like(labels), standard("pgd", "4/255")
    task = Task(*hard, images, none, threat, "digits deit, unbreakable", 10)
    batch = arguments.batch or fastest_batch(task.own, images)
    candidates = {**own(arguments), **bare_loops(bare_pgd), **peers("torchattacks")}
    yield from compared("unbreakable", task, candidates, arguments, batch)
