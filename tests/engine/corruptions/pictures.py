"""Real photographs for the tests: the two that scikit-learn ships."""

from functools import cache

import numpy as np
import torch
from sklearn.datasets import load_sample_images


@cache
def photograph(height: int, width: int, index: int = 0) -> np.ndarray:
    """(height, width, 3) uint8: a detailed part of a photograph (a temple, or a flower)."""
    picture = load_sample_images().images[index][100 : 100 + height, 150 : 150 + width]
    picture.setflags(write=False)
    return picture


def as_images(*pictures: np.ndarray) -> torch.Tensor:
    """(batch, 3, height, width) float32 in [0, 1]."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).to(torch.float32) / 255


def as_levels(images: torch.Tensor) -> np.ndarray:
    """(batch, height, width, 3) float64 from 0 to 255. Fails unless all are whole levels."""
    levels = images.double().mul(255).permute(0, 2, 3, 1).numpy()
    assert np.abs(levels - levels.round()).max() < 1e-4, "not 8-bit levels"
    return levels.round()
