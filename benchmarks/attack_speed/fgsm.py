"""FGSM on what `deit` answers correctly of the digits."""

import argparse
from collections.abc import Iterator

import torch

from attack_speed.models import digit_images, digits_pair
from attack_speed.ours import ours
from attack_speed.peers import bare_fgsm, bare_loops, peers
from attack_speed.rates import fastest_batch
from attack_speed.task import Task, standard
from attack_speed.turns import compared


def rows(arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    device = torch.device(arguments.device)
    timms, loaded = digits_pair(device)
    images, labels = digit_images(arguments.images, loaded, device)
    batch = arguments.batch or fastest_batch(loaded, images)
    candidates = {"ours": ours, **bare_loops(bare_fgsm), **peers("torchattacks", "foolbox", "ART")}
    for weights in ("frozen", "trainable"):
        timms.requires_grad_(weights == "trainable")
        task = Task(timms, loaded, images, labels, standard("fgsm", "4/255"), "digits deit", 10)
        yield from compared("fgsm", task, candidates, arguments, batch, weights)
