"""SPSA with 128 directions and no sample that leaves, some of its 40 steps."""

import argparse
from collections.abc import Iterator

import torch

from attack_speed.models import Pair, deit_tiny, digit_images, digits_pair, random_images, vit_32
from attack_speed.ours import own
from attack_speed.peers import peers, per_image_spsa
from attack_speed.rates import fastest_batch
from attack_speed.task import Images, Task, standard
from attack_speed.turns import compared


def rows(arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    device = torch.device(arguments.device)
    count = arguments.spsa_images
    pair = digits_pair(device)
    models: dict[str, tuple[Pair, Images, int]] = {
        "digits deit, unbreakable": (pair, digit_images(2 * count, pair.own, device)[0][:count], 10),
        "vit 32 px, unbreakable": (vit_32(device), random_images(count, 32, device), 10),
    }
    if device.type == "cuda":
        models["deit-tiny, unbreakable"] = (deit_tiny(device), random_images(count, 224, device), 1000)
    candidates = {**own(arguments), "image by image": per_image_spsa, **peers("torchattacks")}
    scaled = standard("spsa", "1/255").settings.steps_taken / arguments.spsa_steps
    for name, (pair, images, classes) in models.items():
        threat = standard("spsa", "1/255", steps=arguments.spsa_steps)
        labels = torch.zeros(len(images), dtype=torch.int64, device=device)
        task = Task(*pair.unbreakable(classes), images, labels, threat, name, classes)
        batch = arguments.batch or fastest_batch(task.own, images, gradient=False)
        yield from compared("spsa", task, candidates, arguments, batch, scaled=scaled)
