"""Noise: independent draws for every value."""

from functools import lru_cache

import numpy as np
import torch
from scipy.special import pdtr

from robustbench_twicing.engine.corruptions.levels import truncate_
from robustbench_twicing.seeding import Draws
from robustbench_twicing.spec.corruptions import Number
from robustbench_twicing.tensors import Images


def gaussian_noise(levels: Images, deviation: Number, draws: Draws) -> Images:
    """Adds a normal draw of standard deviation `deviation` (in units of the pixel range) to every value."""
    return truncate_(draws.normal(0, levels.shape[1:], levels.device).mul_(255 * deviation).add_(levels))


def speckle_noise(levels: Images, deviation: Number, draws: Draws) -> Images:
    """Multiplies every value with one plus a normal draw of standard deviation `deviation`."""
    return truncate_(draws.normal(0, levels.shape[1:], levels.device).mul_(deviation).add_(1.0).mul_(levels))


def impulse_noise(levels: Images, share: Number, draws: Draws) -> Images:
    """Replaces a `share` of all values, half of them by 0 and half by 255 (salt and pepper of scikit-image).

    Each channel by itself, so single colours appear, not white and black pixels.
    """
    uniform = draws.uniform(0, levels.shape[1:], levels.device)
    return levels.masked_fill_(uniform < share, 0.0).masked_fill_(uniform < share / 2, 255.0)


def shot_noise(levels: Images, photons: int, draws: Draws) -> Images:
    """Counts Poisson-distributed photons, `photons` on average at full brightness.

    The inverse of the distribution function at a uniform draw of 24 bits. A value has only 256 levels, so its high bits
    index a table which for most draws already holds the answer; the others are looked up among the thresholds.
    """
    answers, thresholds, outcomes = _poisson_tables(photons, levels.device)
    draw = draws.uniform(0, levels.shape[1:], levels.device).mul_(2.0**24).to(torch.int32).flatten()
    level = levels.to(torch.int32).flatten()
    noisy = answers.index_select(0, (level << _TABLE_BITS) + (draw >> (24 - _TABLE_BITS)))
    undecided = (noisy < 0).nonzero().squeeze(1)
    keys = ((level[undecided] - 128) << 24) + draw[undecided]
    noisy[undecided] = outcomes[torch.searchsorted(thresholds, keys, right=True) - 1]
    return noisy.view_as(levels)


_TABLE_BITS = 9


@lru_cache(maxsize=16)
def _poisson_tables(photons: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What a level and a draw become: by table (level, high bits of the draw), or by threshold.

    `answers` holds the resulting level, or -1 where the draw's low bits decide. `thresholds` ascend over
    (level - 128) * 2^24 + draw, which just fits 32 bits; `outcomes[i]` is the level from threshold i on.
    More photons than `photons` show as 255, so the distribution function stops there.
    """
    counts = np.arange(photons)
    below = pdtr(counts, np.arange(256)[:, None] / 255 * photons)  # P(at most n photons), by level and n
    steps = np.ceil(below * 2**24).astype(np.int64)
    shown = np.append(np.trunc(counts / photons * 255), 255.0)
    buckets = np.arange(2**_TABLE_BITS + 1) << (24 - _TABLE_BITS)
    first = np.stack([np.searchsorted(row, buckets[:-1], side="right") for row in steps])
    last = np.stack([np.searchsorted(row, buckets[1:] - 1, side="right") for row in steps])
    answers = np.where(first == last, shown[first], -1.0)
    starts = np.zeros((256, 1), dtype=np.int64)
    thresholds = (np.arange(-128, 128)[:, None] << 24) + np.hstack((starts, steps))
    return (
        torch.from_numpy(answers.astype(np.float32).reshape(-1)).to(device),
        torch.from_numpy(thresholds.astype(np.int32).reshape(-1)).to(device),
        torch.from_numpy(np.tile(shown, 256).astype(np.float32)).to(device),
    )
