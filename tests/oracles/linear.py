"""A two-class linear classifier, whose best attack is known in closed form. Shares no code with the package."""

import numpy as np
import torch
from torch import nn


class TwoClassLinear(nn.Module):
    """Logits (w·x + b, 0): class 0 leads by w·x + b."""

    def __init__(self, shape: tuple[int, int, int], seed: int = 0, scale: float = 1.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(shape, generator=generator)
        # No weight near zero, so that no sign hangs on rounding.
        self.weight = nn.Parameter(scale * (weight.sign() * (0.5 + weight.abs())))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        lead = (images * self.weight).flatten(1).sum(1) + self.bias
        return torch.stack((lead, torch.zeros_like(lead)), dim=1)


def best_linf(weight: np.ndarray, images: np.ndarray, eps: float, bounds: tuple[float, float] | None) -> np.ndarray:
    """The images in the L∞ ball (and in `bounds`) where class 0 leads least: each value goes as far as it may."""
    moved = images - eps * np.sign(weight)
    return moved if bounds is None else np.clip(moved, *bounds)


def best_l2(weight: np.ndarray, images: np.ndarray, eps: float) -> np.ndarray:
    """The images in the L2 ball where class 0 leads least: straight against the weight."""
    return images - eps * weight / np.sqrt((weight**2).sum())


class Quadratic(nn.Module):
    """Logits (½ xᵀAx + b·x, 0) with a symmetric A, so that the gradient of the lead is Ax + b."""

    def __init__(self, size: int, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        a = torch.randn(size, size, generator=generator, dtype=torch.float64)
        self.a = (a + a.T) / size**0.5
        self.b = torch.randn(size, generator=generator, dtype=torch.float64)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = images.flatten(1)
        lead = 0.5 * ((x @ self.a) * x).sum(1) + x @ self.b
        return torch.stack((lead, torch.zeros_like(lead)), dim=1)

    def gradient(self, images: torch.Tensor) -> torch.Tensor:
        """Gradient of class 0's lead, written out."""
        return (images.flatten(1) @ self.a + self.b).reshape(images.shape)
