"""How fast networks with convolutions are in each memory format, forward alone and with the input gradient."""

import argparse
from collections.abc import Iterator
from functools import partial
from itertools import product

import torch

from attack_speed.models import random_images
from attack_speed.rates import batch_rate
from attack_speed.turns import raced
from robustbench_twicing.machine.malloc import KEPT, tell_glibc
from robustbench_twicing.models.build import new_network
from robustbench_twicing.models.faster.memory_format import MEMORY_FORMATS, set_memory_format


def rows(arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    device = torch.device(arguments.device)
    tell_glibc(KEPT)
    images = random_images(arguments.large_images or 16, 224, device)
    for name, gradient in product(("resnet50", "efficientnet_b0", "vgg11", "convnext_atto"), (False, True)):
        networks = {lying: new_network(name).eval().requires_grad_(False).to(device) for lying in MEMORY_FORMATS}
        for lying, network in networks.items():
            set_memory_format([network], lying)
        rates = {lying: partial(batch_rate, network, images, 16, gradient) for lying, network in networks.items()}
        for lying, numbers in raced(rates, arguments.turns):
            yield {
                "measurement": "formats",
                "model": name,
                "candidate": f"forward{' and input gradient' if gradient else ''}, {lying}",
                "batch": 16,
                "images": len(images),
                **numbers,
            }
