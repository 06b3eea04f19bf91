"""How fast each model is at each batch size, forward alone and with the input gradient."""

import argparse
from collections.abc import Iterator
from functools import partial
from itertools import product

import torch

from attack_speed.models import deit_tiny, digits_pair, random_images, vit_32
from attack_speed.rates import batch_rate, batch_sizes
from attack_speed.turns import raced


def rows(arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    device = torch.device(arguments.device)
    small, middle, large = (make(device).own for make in (digits_pair, vit_32, deit_tiny))
    models = {"digits deit": (small, 32), "vit 32 px": (middle, 32), "deit-tiny": (large, 224)}
    for (name, (model, side)), gradient in product(models.items(), (False, True)):
        sizes = batch_sizes(side, device)
        images = random_images(sizes[-1], side, device)
        rows = raced({size: partial(batch_rate, model, images, size, gradient) for size in sizes}, arguments.turns)
        for size, numbers in rows:
            yield {
                "measurement": "batches",
                "model": name,
                "candidate": "forward and input gradient" if gradient else "forward",
                "batch": size,
                "images": len(images),
                **numbers,
            }
