"""The batched JPEG round trip against Pillow's encoder and decoder."""

import numpy as np
import pytest
import torch

from robustbench_twicing.engine.corruptions.jpeg import jpeg_round_trip
from tests.engine.corruptions.pictures import photograph
from tests.oracles.corruptions import jpeg_compression as pillow


def ours(picture, quality):
    levels = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].to(torch.float32)
    return jpeg_round_trip(levels, quality)[0].permute(1, 2, 0).double().numpy()


@pytest.mark.parametrize("quality", [1, 7, 15, 25, 40, 50, 65, 80, 85, 95, 100])
# Multiples of 16, of 8, odd ones, and less than a block over.
@pytest.mark.parametrize(("height", "width"), [(64, 96), (40, 56), (33, 47), (50, 65)])
def test_photographs_come_back_as_from_pillow(quality, height, width):
    # Only the cosine transforms differ (float32 here, 13-bit fixed point there). Measured over 20 photographs and 11
    # qualities: at most 16 % of the values differ, by 0.27 levels in the mean; a coefficient that falls to the other
    # side of a rounding border changes its block by up to 30 levels.
    for index in (0, 1):
        picture = photograph(height, width, index)
        difference = np.abs(ours(picture, quality) - pillow(picture, quality))
        damage = np.abs(pillow(picture, quality) - picture).mean()
        assert difference.mean() <= min(0.4, 0.15 * damage + 0.15)
        assert (difference > 0).mean() <= 0.2


@pytest.mark.parametrize("quality", [10, 50, 85])
@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255), (12, 130, 77)])
def test_plain_colours_are_exact(quality, colour):
    picture = np.full((48, 48, 3), colour, np.uint8)
    assert np.array_equal(ours(picture, quality), pillow(picture, quality))


@pytest.mark.parametrize("quality", [25, 85])
def test_ties_of_the_quantiser_round_away_from_zero(quality):
    # Blocks of one grey each: only the first coefficient is not 0, and often it lies halfway between two steps.
    greys = np.arange(0, 256).reshape(16, 16).astype(np.uint8)
    picture = np.repeat(np.kron(greys, np.ones((16, 16), np.uint8))[..., None], 3, axis=2)
    assert np.array_equal(ours(picture, quality), pillow(picture, quality))


def test_chroma_is_sampled_as_libjpeg_does():
    # Sharp colour edges of equal luma, at quality 100 where quantisation hides nothing.
    picture = np.full((32, 32, 3), (200, 60, 90), np.uint8)
    picture[:, 13:] = (20, 140, 120)
    picture[21:] = (120, 100, 200)
    assert np.abs(ours(picture, 100) - pillow(picture, 100)).max() <= 2
