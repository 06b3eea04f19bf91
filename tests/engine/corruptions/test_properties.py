"""What holds for every corruption, image and seed."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustbench_twicing.engine.corruptions import corrupt
from robustbench_twicing.spec.corruptions import CORRUPTIONS, families
from tests.engine.corruptions.pictures import as_images, as_levels, photograph

IMAGENET_C = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
    "extra": ("speckle_noise", "gaussian_blur", "spatter", "saturate"),
}
NINETEEN = tuple(name for family in IMAGENET_C.values() for name in family)
DETERMINISTIC = (
    *("defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression"),
    *("gaussian_blur", "saturate"),
)
RANDOM = [name for name in NINETEEN if name not in DETERMINISTIC]

names = st.sampled_from(sorted(CORRUPTIONS))
severities = st.integers(1, 5)
seeds = st.integers(-(2**63), 2**63)
sample_ids = st.text(max_size=20)
# Around the borders of the size tables, odd and even, wide and tall.
sides = st.one_of(st.integers(32, 70), st.sampled_from([119, 120, 127]))


@st.composite
def images(draw, count=1):
    """Photographs, noise, or one colour: pictures with and without detail."""
    height, width = draw(sides), draw(sides)
    kind = draw(st.sampled_from(["photograph", "noise", "plain", "black", "white"]))
    if kind == "photograph":
        return as_images(*(photograph(height, width, index % 2) for index in range(count)))
    if kind == "noise":
        generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
        return torch.rand(count, 3, height, width, generator=generator)
    colour = {"black": 0.0, "white": 1.0}.get(kind)
    return torch.full((count, 3, height, width), draw(st.floats(0, 1, width=32)) if colour is None else colour)


@settings(max_examples=150, deadline=None)
@given(images(), names, severities, seeds, sample_ids)
def test_shape_type_and_range_are_kept(batch, name, severity, seed, sample_id):
    before = batch.clone()
    corrupted = corrupt(batch, name, severity, seed, [sample_id], frost_dir="drawn")
    assert corrupted.shape == batch.shape
    assert corrupted.dtype == torch.float32
    assert corrupted.min() >= 0
    assert corrupted.max() <= 1
    as_levels(corrupted)
    assert torch.equal(batch, before), "the input was changed"


@settings(max_examples=60, deadline=None)
@given(images(), names, severities, seeds, sample_ids)
def test_same_seed_and_id_give_the_same_picture(batch, name, severity, seed, sample_id):
    first, second = (corrupt(batch, name, severity, seed, [sample_id], frost_dir="drawn") for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("side", [32, 120])
def test_batch_mates_order_and_batch_size_change_nothing(name, side):
    batch = as_images(
        *(photograph(side, side + 5, index % 2)[::step, :] for index, step in enumerate((1, 1, -1, -1, 1)))
    )
    ids = ["a", "b", "c", "d", "e"]
    together = corrupt(batch, name, 3, seed=1, ids=ids, frost_dir="drawn")
    backwards = corrupt(batch.flip(0), name, 3, seed=1, ids=ids[::-1], frost_dir="drawn")
    alone = torch.cat([corrupt(batch[[row]], name, 3, seed=1, ids=[ids[row]], frost_dir="drawn") for row in range(5)])
    assert torch.equal(together, backwards.flip(0))
    assert torch.equal(together, alone)


@pytest.mark.parametrize("name", RANDOM)
def test_another_id_seed_or_severity_draws_anew(name):
    grey = as_images(photograph(48, 48)).expand(2, -1, -1, -1)
    one, other = corrupt(grey, name, 3, seed=0, ids=["a", "b"], frost_dir="drawn")
    (reseeded,) = corrupt(grey[:1], name, 3, seed=1, ids=["a"], frost_dir="drawn")
    assert not torch.equal(one, other)
    assert not torch.equal(one, reseeded)
    # At another severity of equal strength the draws would have to differ too; impulse noise shows where it struck.
    if name == "impulse_noise":
        milder = corrupt(grey[:1], name, 2, seed=0, ids=["a"])[0]
        struck = [(picture != grey[0]) for picture in (one, milder)]
        both = (struck[0] & struck[1]).double().mean()
        assert both < 2 * struck[0].double().mean() * struck[1].double().mean()


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_deterministic_corruptions_do_not_depend_on_the_id(name):
    batch = as_images(photograph(48, 40)).expand(2, -1, -1, -1)
    one, other = corrupt(batch, name, 4, ids=["a", "b"])
    assert torch.equal(one, other)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_pictures_are_taken_at_their_nearest_level(name):
    batch = as_images(photograph(40, 40))
    nudged = (batch + 0.4 / 255 * (2 * torch.rand(batch.shape, generator=torch.Generator().manual_seed(0)) - 1)).clamp(
        0, 1
    )
    assert torch.equal(corrupt(batch, name, 2, frost_dir="drawn"), corrupt(nudged, name, 2, frost_dir="drawn"))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_jpeg_quality_adds_the_round_trip_of_the_published_files(name):
    batch = as_images(photograph(48, 64))
    plain = corrupt(batch, name, 3, frost_dir="drawn")
    stored = corrupt(batch, name, 3, frost_dir="drawn", jpeg_quality=85)
    change = np.abs(as_levels(stored) - as_levels(plain)).mean()
    # A picture of a JPEG file survives another round trip at higher quality almost unchanged; noise loses most.
    assert 0 < change < 60


def test_ids_default_to_the_place_in_the_batch():
    batch = as_images(photograph(40, 40), photograph(40, 40))
    assert torch.equal(corrupt(batch, "fog", 1), corrupt(batch, "fog", 1, ids=["0", "1"]))


def test_the_table_lists_all_nineteen_in_imagenet_cs_order():
    assert tuple(CORRUPTIONS)[:19] == NINETEEN
    assert families(NINETEEN) == IMAGENET_C
