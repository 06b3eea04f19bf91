"""How fast a model alone is at each batch size."""

import statistics

import torch
from torch import nn

from attack_speed.task import Images
from attack_speed.turns import timed
from robustbench_twicing.engine.contract import Queries
from robustbench_twicing.engine.losses import log_odds_against


def batch_rate(model: nn.Module, images: Images, size: int, gradient: bool) -> float:
    """Images per second as the tool evaluates them, `size` at a time."""
    labels = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    queries = Queries(model, size)

    def run() -> Images:
        return queries.gradient(images, labels, log_odds_against)[1] if gradient else queries(images)

    return len(images) / timed(run, images.device)[0].cost


def batch_sizes(side: int, device: torch.device) -> list[int]:
    """Those worth a try for images of `side` pixels."""
    if device.type == "cuda":
        return [2**power for power in range(5, 13 if side < 100 else 10)]
    return [2**power for power in range(3, 10 if side < 100 else 7)]


def fastest_batch(model: nn.Module, images: Images, gradient: bool = True) -> int:
    """The size at which the model evaluates images such as these fastest; of three turns."""
    sizes = batch_sizes(images.shape[-1], images.device)
    many = images.repeat(-(-sizes[-1] // len(images)), 1, 1, 1)[: sizes[-1]]
    rates = {size: [batch_rate(model, many, size, gradient) for _ in range(4)][1:] for size in sizes}
    return max(sizes, key=lambda size: statistics.median(rates[size]))
