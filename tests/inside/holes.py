"""Small models of digits: honest ones, and ones whose accuracy under attack is no robustness, each for one reason."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from robustbench_twicing.data.digits import digits
from robustbench_twicing.inside.broken import Samples
from robustbench_twicing.spec.models import Recipe


def samples(count: int, split: str = "test", start: int = 0) -> Samples:
    data, rows = digits(split), slice(start, start + count)
    images = data.read(range(start, start + count), [Recipe()]).images[Recipe()]
    return Samples(tuple(data.sample_ids[rows]), images, torch.tensor(data.labels[rows]))


class Residual(nn.Module):
    """A block of a ResNet (He et al. 2016): two convolutions, normalised by the batch, and the way past them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            *(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            *(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x + self.inner(x))


def convolutional(seed: int = 0, steps: int = 60, eps: float = 0.0, residual: bool = False) -> nn.Module:
    """A small network, trained for some steps; with `eps` on images that three steps of PGD made (Madry et al.)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        middle = (Residual(16), Residual(16)) if residual else ()
        network = nn.Sequential(
            *(nn.Conv2d(3, 16, 4, stride=4), nn.ReLU(), *middle, nn.Conv2d(16, 32, 3, padding=1), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(32 * 64, 10)),
        )
        given = samples(1200, "train")
        optimizer = torch.optim.Adam(network.parameters(), 3e-3)
        for _ in range(steps):
            rows = torch.randint(0, 1200, (100,))
            images, labels = given.images[rows], given.labels[rows]
            moved = images
            for _ in range(3 if eps else 0):
                moved = moved.detach().requires_grad_()
                (gradient,) = torch.autograd.grad(F.cross_entropy(network(moved), labels), moved)
                moved = (moved + eps / 2 * gradient.sign()).clamp(images - eps, images + eps).clamp(0, 1)
            optimizer.zero_grad()
            F.cross_entropy(network(moved.detach()), labels).backward()
            optimizer.step()
    return network.eval().requires_grad_(False)


class Hole(nn.Module):
    """A network with something done to it."""

    def __init__(self, network: nn.Module, kind: str) -> None:
        super().__init__()
        self.network, self.kind = network, kind

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.kind == "saturated logits":
            return 1e4 * self.network(images)
        if self.kind == "stochastic layer":
            return self.network(images + 0.1 * torch.randn_like(images))
        if self.kind == "step without derivative":
            return self.network((images * 15).round() / 15)
        if self.kind == "wrong backward in one block":
            x = images
            for number, part in enumerate(self.network.children()):
                x = part(x)
                if number == 2:
                    x = _Turned.apply(x)
            return x
        assert self.kind == "vanishes under bfloat16"
        squashed = torch.tanh(images / 4 + 4)  # float32 tells these values apart, bfloat16 sees ones
        return self.network(4 * (torch.atanh(squashed.double().clamp(max=1 - 1e-12)).to(images) - 4))


class _Turned(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient.flip(1)
