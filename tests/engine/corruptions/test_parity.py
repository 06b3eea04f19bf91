"""Every corruption equals an independent reference, pixel by pixel, given the same random numbers.

The references (tests/oracles/corruptions) are per-picture numpy, scipy, scikit-image and Pillow in float64. Whether the
random numbers have the right distribution is asked in test_distribution.py.
"""

import math

import numpy as np
import pytest
import torch

from robustbench_twicing.engine.corruptions import corrupt, frost_pictures
from robustbench_twicing.seeding import Draws
from robustbench_twicing.spec.corruptions import CORRUPTIONS
from tests.engine.corruptions.pictures import as_images, as_levels, photograph
from tests.oracles import corruptions as oracle

# Ours is float32 and truncates with a tolerance of 2^-9 level (levels.TIE); float32 itself adds less than that again.
TOLERANCE = 2.0**-8

# Height, width, the generator's table for that size, severities. Rectangles: no axis may be taken for another.
SIZES = [(40, 36, 32, (2, 5)), (48, 64, 64, (1, 4)), (122, 126, 224, (1, 2, 3, 4, 5))]
CASES = [(height, width, table, severity) for height, width, table, severities in SIZES for severity in severities]


def random_numbers(name, draws, height, width, constants):
    """What the oracle needs of our draws, in the order in which the corruption numbers them."""

    def plane(kind, index, *shape):
        return getattr(draws, kind)(index, shape)[0].double().numpy()

    if name in ("gaussian_noise", "speckle_noise"):
        return (plane("normal", 0, 3, height, width).transpose(1, 2, 0),)
    if name in ("shot_noise", "impulse_noise"):
        return (plane("uniform", 0, 3, height, width).transpose(1, 2, 0),)
    if name == "glass_blur":
        return ([sixteen_bits(draws, index, height, width) for index in range(constants[2])],)
    if name == "motion_blur":
        return (plane("uniform", 0, 1)[0],)
    if name == "snow":
        visible = math.ceil(height / constants[2]), math.ceil(width / constants[2])
        return plane("normal", 0, *visible), plane("uniform", 1, 1)[0]
    if name == "fog":
        side = 2 ** math.ceil(math.log2(max(height, width)))
        return (plane("uniform", 0, side, side),)
    if name == "elastic_transform":
        return plane("uniform", 0, 3, 2), plane("uniform", 1, 2, height, width)
    if name == "spatter":
        return (plane("normal", 0, height, width),)
    return ()


def sixteen_bits(draws, index, height, width):
    """(height, width) on [0, 1): each 64-bit word gives four numbers, its lowest 16 bits first."""
    words = draws.words(index, -(-height * width // 4))[0].numpy().view(np.uint64)
    numbers = (words[:, None] >> np.array((0, 16, 32, 48), dtype=np.uint64)) & np.uint64(0xFFFF)
    return numbers.ravel()[: height * width].reshape(height, width) / 65536


@pytest.mark.parametrize(("height", "width", "table", "severity"), CASES)
@pytest.mark.parametrize("name", [name for name in oracle.CONSTANTS if name not in ("frost", "jpeg_compression")])
def test_corruption_equals_the_reference_pixel_by_pixel(name, height, width, table, severity):
    picture = photograph(height, width, severity % 2)
    constants = oracle.CONSTANTS[name][str(table)][severity - 1]
    draws = Draws(5, ("some id",), f"{name}-{severity}")
    exact = getattr(oracle, name)(picture, constants, *random_numbers(name, draws, height, width, constants))
    ours = as_levels(corrupt(as_images(picture), name, severity, seed=5, ids=["some id"]))[0]
    wrong = (ours < np.floor(exact - TOLERANCE)) | (ours > np.floor(exact + TOLERANCE))
    # Three corruptions truncate on their way too, where float32 may fall to the other side of the tolerance: a pixel
    # or two, which then change a few of the result by one level. The elastic one samples at float32 coordinates.
    allowed = 1e-4 if name in ("glass_blur", "snow", "spatter", "elastic_transform") else 0
    assert wrong.mean() <= allowed, f"{wrong.sum()} of {wrong.size} pixels, by up to {np.abs(ours - exact).max()}"
    assert np.abs(ours - np.floor(exact)).max() <= 1


@pytest.mark.parametrize(("height", "width", "table", "severity"), CASES)
def test_frost_equals_the_reference_pixel_by_pixel(height, width, table, severity):
    scale = {32: 0.2, 64: 0.3, 224: 1}[table]
    overlays = [
        overlay.permute(1, 2, 0).double().numpy()
        for overlay in frost_pictures("drawn").fitted(scale, height, width, torch.device("cpu"))
    ]
    draw = Draws(5, ("some id",), f"frost-{severity}").uniform(0, (3,))[0].double().numpy()
    picture = photograph(height, width)
    exact = oracle.frost(picture, oracle.CONSTANTS["frost"][str(table)][severity - 1], draw, overlays)
    ours = corrupt(as_images(picture), "frost", severity, seed=5, ids=["some id"], frost_dir="drawn")
    assert np.array_equal(as_levels(ours)[0], np.floor(exact + TOLERANCE / 2))


def test_the_severities_are_the_original_generators():
    def plain(value):
        return [plain(part) for part in value] if isinstance(value, tuple | list) else value

    for name in oracle.CONSTANTS:
        for size in (32, 64, 224):
            ours, theirs = plain(CORRUPTIONS[name].settings[size]), oracle.CONSTANTS[name][str(size)]
            if name == "frost":
                ours = [setting[:2] for setting in ours]  # the third is how the picture of frost is scaled
            if name == "spatter":
                ours = [[*setting[:5], ("water", "mud").index(setting[5])] for setting in ours]
            if name == "elastic_transform":
                # 64 * 0.06 and 0.06 * 64 are the same number; 244 * 2 * 0.7 could differ in its last bit
                np.testing.assert_allclose(ours, theirs, rtol=1e-15)
            else:
                assert ours == theirs, (name, size)


@pytest.mark.parametrize(
    ("height", "width", "table"),
    [(32, 32, 32), (45, 400, 32), (46, 46, 64), (64, 64, 64), (300, 119, 64), (120, 120, 224), (224, 224, 224)],
)
def test_the_shorter_side_chooses_the_table(height, width, table):
    # pixelate at severity 1 leaves another number of distinct columns in each table: 0.95, 0.9 or 0.6 of the width
    noise = torch.randint(0, 256, (1, 3, height, width), generator=torch.Generator().manual_seed(0)) / 255
    columns = as_levels(corrupt(noise, "pixelate", 1))[0].transpose(1, 0, 2).reshape(width, -1)
    share = {32: 0.95, 64: 0.9, 224: 0.6}[table]
    assert len(np.unique(columns, axis=0)) == int(width * share)
