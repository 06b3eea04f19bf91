"""The random corruptions are distributed as the references are with numpy's own generators.

test_parity.py holds each corruption to its reference with the same random numbers; here the random numbers differ, and
two-sample tests over many seeds compare what comes out: mean, deviation, and the spectrum of what was changed.
"""

import numpy as np
import pytest
import torch
from scipy import stats
from skimage.util import random_noise

from robustbench_twicing.engine.corruptions import corrupt, frost_pictures
from tests.engine.corruptions.pictures import as_images, as_levels, photograph
from tests.oracles import corruptions as oracle

CPU = torch.device("cpu")
SIDE, SAMPLES = 40, 60
SEVERITY = 4


def sample_reference(name, rng, picture, c):
    """One picture of the reference, from numpy's generator, or another library's where that has the distribution."""
    shape = picture.shape
    if name in ("gaussian_noise", "speckle_noise"):
        return getattr(oracle, name)(picture, c, rng.normal(size=shape))
    if name == "shot_noise":
        return np.clip(rng.poisson(picture / 255 * c) / c, 0, 1) * 255
    if name == "impulse_noise":
        return random_noise(picture / 255, mode="s&p", amount=c, rng=rng) * 255
    if name == "glass_blur":
        return oracle.glass_blur(picture, c, rng.random((c[2], SIDE, SIDE)))
    if name == "motion_blur":
        return oracle.motion_blur(picture, c, rng.random()) + 0.5
    if name == "snow":
        visible = int(np.ceil(SIDE / c[2]))
        return oracle.snow(picture, c, rng.normal(size=(visible, visible)), rng.random())
    if name == "frost":
        overlays = [
            overlay.permute(1, 2, 0).numpy() for overlay in frost_pictures("drawn").fitted(0.2, SIDE, SIDE, CPU)
        ]
        return oracle.frost(picture, c, rng.random(3), overlays)
    if name == "fog":
        return oracle.fog(picture, c, rng.random((64, 64)))
    if name == "elastic_transform":
        return oracle.elastic_transform(picture, c, rng.random((3, 2)), rng.random((2, SIDE, SIDE)))
    return oracle.spatter(picture, c, rng.normal(size=shape[:2]))


def features(pictures, clean):
    """(pictures, features): mean, deviation, and the change's energy by direction and by frequency, as logarithms."""
    change = (pictures - clean).mean(-1)
    power = np.abs(np.fft.fft2(change)) ** 2
    frequency = np.abs(np.fft.fftfreq(SIDE))
    ring = np.maximum(frequency[:, None], frequency)
    bands = [power[:, (ring >= low) & (ring < high)].mean(1) for low, high in ((0.01, 0.1), (0.1, 0.25), (0.25, 0.6))]
    upright = power[:, frequency[:, None] > frequency].mean(1) / power[:, frequency[:, None] < frequency].mean(1)
    first = [
        pictures.mean((1, 2, 3)),
        pictures.std((1, 2, 3)),
        pictures[..., 0].mean((1, 2)),
        pictures[:, :20].mean((1, 2, 3)),
    ]
    return np.stack([*first, *(np.log(band) for band in (*bands, upright))], 1)


@pytest.mark.parametrize(
    "name",
    [
        "gaussian_noise",
        "shot_noise",
        "impulse_noise",
        "glass_blur",
        "motion_blur",
        "snow",
        "frost",
        "fog",
        "elastic_transform",
        "speckle_noise",
        "spatter",
    ],
)
def test_pictures_are_distributed_as_the_references(name):
    picture = photograph(SIDE, SIDE)
    constants = oracle.CONSTANTS[name]["32"][SEVERITY - 1]
    rng = np.random.default_rng(7)
    reference = np.stack([np.floor(sample_reference(name, rng, picture, constants)) for _ in range(SAMPLES)])
    batch = as_images(picture).expand(SAMPLES, -1, -1, -1)
    ids = [f"sample {index}" for index in range(SAMPLES)]
    ours = as_levels(corrupt(batch, name, SEVERITY, seed=3, ids=ids, frost_dir="drawn"))
    for ours_one, reference_one in zip(features(ours, picture).T, features(reference, picture).T, strict=True):
        # Kolmogorov and Smirnov's test. 11 corruptions with 8 features: at 1 in 10,000 a false alarm has a chance
        # below 1 %, while a deviation that is 1.6 times as large would be seen.
        assert stats.ks_2samp(ours_one, reference_one).pvalue > 1e-4


@pytest.mark.parametrize("level", [0, 3, 60, 128, 255])
@pytest.mark.parametrize(("side", "severity"), [(32, 5), (64, 3), (128, 1), (128, 5)])
def test_shot_noise_counts_as_poisson(level, side, severity):
    photons = oracle.CONSTANTS["shot_noise"][str(224 if side == 128 else side)][severity - 1]
    plain = np.full((side, side, 3), level, np.uint8)
    shown = as_levels(corrupt(as_images(plain), "shot_noise", severity, ids=["x"])).ravel()
    counts = np.minimum(np.ceil(shown * photons / 255 - 1e-9), photons).astype(int)
    assert np.array_equal(np.floor(counts / photons * 255 + 1e-9), shown)
    expected = stats.poisson.pmf(np.arange(photons + 1), level / 255 * photons)
    expected[-1] += 1 - expected.sum()
    often = expected * counts.size >= 5
    observed = np.bincount(counts, minlength=photons + 1)
    observed = np.append(observed[often], observed[~often].sum())
    expected = np.append(expected[often], max(expected[~often].sum(), 1e-12)) * counts.size
    if len(expected) > 2:
        assert stats.chisquare(observed, expected * observed.sum() / expected.sum()).pvalue > 1e-4
    else:
        assert observed[0] == counts.size


def test_impulse_noise_strikes_the_stated_share_half_with_salt():
    grey = as_images(np.full((224, 224, 3), 128, np.uint8))
    for severity, share in enumerate(oracle.CONSTANTS["impulse_noise"]["224"], start=1):
        noisy = as_levels(corrupt(grey, "impulse_noise", severity))
        # Four standard deviations of a binomial count.
        spread = 4 * np.sqrt(share / 2 / noisy.size)
        assert abs((noisy == 255).mean() - share / 2) < spread
        assert abs((noisy == 0).mean() - share / 2) < spread


def test_motion_blurs_directions_cover_both_diagonals():
    # One white point: its ray ends within 45 degrees of the horizontal, up and down alike.
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[32, 40] = 255
    batch = as_images(picture).expand(200, -1, -1, -1)
    rays = as_levels(corrupt(batch, "motion_blur", 5))[..., 0]
    rows, columns = np.mgrid[:64, :64]
    down = ((rows - 32) * rays).sum((1, 2)) / rays.sum((1, 2))
    right = ((columns - 40) * rays).sum((1, 2)) / rays.sum((1, 2))
    angles = np.degrees(np.arctan2(-down, -right))
    assert np.abs(angles).max() < 48  # steps are whole pixels
    assert stats.kstest(angles, stats.uniform(-45, 90).cdf).pvalue > 1e-4
