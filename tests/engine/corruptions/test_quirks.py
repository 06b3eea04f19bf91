"""Peculiarities of the generator that ImageNet-C's files were made with, each pinned. See docs/corruptions.md."""

import numpy as np
import pytest
import torch

from robustbench_twicing.engine.corruptions import corrupt, frost_pictures
from robustbench_twicing.engine.corruptions.filters import motion_taps
from robustbench_twicing.seeding import Draws
from robustbench_twicing.spec.corruptions import CORRUPTIONS
from tests.engine.corruptions.pictures import as_images, as_levels, photograph
from tests.oracles import corruptions as oracle


def distinct_colours():
    """1024 colours that all differ, far enough apart not to be confused after a faint blur."""
    red, green = np.mgrid[:32, :32] * 8
    return np.stack((red, green, 255 - red), -1).astype(np.uint8)


def test_glass_blurs_swap_is_a_copy():
    # At 32 pixels and severity 1 the blur's kernel is a single pixel, so the result holds only moved colours. A true
    # swap would keep all 1024 of them.
    before = distinct_colours()
    after = as_levels(corrupt(as_images(before), "glass_blur", 1))[0].astype(np.uint8)
    colours_before = {tuple(colour) for colour in before.reshape(-1, 3)}
    colours_after = {tuple(colour) for colour in after.reshape(-1, 3)}
    assert colours_after < colours_before
    assert len(colours_after) < 800


def test_glass_blur_leaves_the_border_out_of_the_walk():
    before = distinct_colours()
    after = as_levels(corrupt(as_images(before), "glass_blur", 1))[0].astype(np.uint8)
    # Reach 1: rows and columns 0 and 1 are never written, the last ones are.
    assert np.array_equal(after[:2], before[:2])
    assert np.array_equal(after[:, :2], before[:, :2])
    assert not np.array_equal(after[-1], before[-1])


def test_levels_are_truncated_not_rounded():
    # 100 + 0.05 * 255 = 112.75: brightness at severity 1, 32 pixels
    assert np.unique(as_levels(corrupt(torch.full((1, 3, 32, 32), 100 / 255), "brightness", 1))) == 112


def test_brightness_truncates_sums_of_whole_levels_as_float64_does():
    # 0.2 * 255 = 51 levels exactly, but x / 255 + 0.2 in float64 falls short for 18 of the 256 levels.
    ramp = torch.arange(256).view(1, 1, 16, 16).repeat(1, 3, 8, 8) / 255
    brighter = as_levels(corrupt(ramp, "brightness", 2))[0, :16, :16, 0].ravel()
    expected = np.uint8(np.clip(np.arange(256) / 255.0 + 0.2, 0, 1) * 255)
    assert np.array_equal(brighter, expected)
    assert (expected < np.minimum(np.arange(256) + 51, 255)).sum() == 18


def test_motion_blur_truncates_as_the_generator_does():
    # A dim picture stays the same where it is flat, and loses half a level on average where it is blurred.
    draws = Draws(5, ("some id",), "motion_blur-5")
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    blurred = as_levels(corrupt(as_images(picture), "motion_blur", 5, seed=5, ids=["some id"]))[0]
    unrounded = oracle.motion_blur(picture, oracle.CONSTANTS["motion_blur"]["64"][4], draws.uniform(0, (1,))[0, 0])
    assert np.array_equal(blurred, np.floor(unrounded + 2.0**-9))
    assert 0.45 < (unrounded - blurred).mean() < 0.55
    assert np.unique(as_levels(corrupt(torch.full((1, 3, 64, 64), 100 / 255), "motion_blur", 5))) == 100


def test_motion_blur_is_one_sided():
    taps = motion_taps(radius=10, sigma=3, degrees=0)
    assert len(taps) == 21
    assert [right for _, right, _ in taps] == list(range(21))
    assert sum(weight for *_, weight in taps) == pytest.approx(1)


def test_zoom_factors_are_what_numpys_arange_gave():
    # Rounding decides whether arange includes its stop: 1.06 and 1.11 are in, 1.16, 1.21, 1.26 and 1.31 are not.
    assert [len(factors) for factors in CORRUPTIONS["zoom_blur"].settings[224]] == [12, 16, 11, 13, 11]
    assert [len(factors) for factors in CORRUPTIONS["zoom_blur"].settings[32]] == [7, 12, 16, 21, 26]
    assert CORRUPTIONS["zoom_blur"].settings[224][0][-1] == pytest.approx(1.11)
    assert CORRUPTIONS["zoom_blur"].settings[224][1][-1] == pytest.approx(1.15)


def test_saturate_tints_greys_red():
    # A grey has no hue, which HSV writes as red; from severity 4 on saturation is added, not only multiplied.
    grey = torch.full((1, 3, 32, 32), 0.5)
    assert torch.equal(corrupt(grey, "saturate", 3), corrupt(grey, "contrast", 1))
    red, green, blue = as_levels(corrupt(grey, "saturate", 4))[0, 0, 0]
    assert (red, green, blue) == (128, 115, 115)  # saturation 0.1


def test_fogs_roughness_counts_twice():
    # The original multiplies its wobble with a draw on [-wobble, wobble]: with a decay of 3 the detail of each step is
    # 9 times smaller than the last, not 3 times. The finest detail is what neighbours differ by along a row.
    fog = as_levels(corrupt(torch.ones(1, 3, 64, 64), "fog", 1))[0, ..., 0]
    fine = np.abs(fog[:, 1:] - fog[:, :-1]).mean()
    coarse = np.abs(fog[:, 8:] - fog[:, :-8]).mean()
    assert fine < coarse / 4


def test_pixelate_enlarges_with_box_so_that_pixels_stay_sharp():
    levels = as_levels(corrupt(as_images(photograph(128, 128)), "pixelate", 5))[0]
    assert len(np.unique(levels.reshape(128, -1), axis=0)) == 32  # 128 * 0.25 rows, each repeated


def test_elastic_transform_moves_the_picture_by_an_affine_map_first():
    # At 32 pixels and severity 1 the displacement's strength is 0, so the affine map is all there is.
    assert CORRUPTIONS["elastic_transform"].settings[32][0][0] == 0
    picture = as_images(photograph(32, 32))
    assert not torch.equal(corrupt(picture, "elastic_transform", 1), picture)


@pytest.mark.parametrize("source", [None, "drawn"])
def test_frost_draws_from_five_pictures_of_which_two_are_the_same(source):
    # The original's list has six, the last of which its draw never reaches.
    pictures = frost_pictures(source).pictures
    assert len(pictures) == 5
    assert torch.equal(pictures[1], pictures[2])
