"""PGD-20 on what `deit` answers correctly of the digits."""

import argparse
from collections.abc import Iterator
from itertools import product

import torch

from attack_speed.models import digit_images, digits_pair
from attack_speed.ours import own
from attack_speed.peers import bare_loops, bare_pgd, peers
from attack_speed.rates import fastest_batch
from attack_speed.task import Task, standard
from attack_speed.turns import compared


def rows(arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    device = torch.device(arguments.device)
    timms, loaded = digits_pair(device)
    images, labels = digit_images(arguments.images, loaded, device)
    batch = arguments.batch or fastest_batch(loaded, images)
    candidates = {**own(arguments), **bare_loops(bare_pgd), **peers("torchattacks", "foolbox", "ART")}
    for weights, eps in product(("frozen", "trainable"), ("4/255", "1/255")):
        timms.requires_grad_(weights == "trainable")
        task = Task(timms, loaded, images, labels, standard("pgd", eps), "digits deit", 10)
        yield from compared("pgd", task, candidates, arguments, batch, weights)
