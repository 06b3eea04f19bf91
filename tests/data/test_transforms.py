"""Recipes, bit by bit against timm's own evaluation transform."""

import math

import numpy as np
import pytest
import timm.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from robustbench_twicing.catalog.suites import suite
from robustbench_twicing.data.decode import Unreadable
from robustbench_twicing.data.transforms import prepared, recipe_named, stacked
from robustbench_twicing.errors import UserError
from robustbench_twicing.spec.models import Recipe, Recipes
from tests.imagenet_trees import photograph

DEIT = Recipe(resize=248, crop=224)
OF_DEIT = Recipes(DEIT, DEIT)
LARGE = Recipes(Recipe(resize=384, crop=384), Recipe(resize=384, crop=384))
SIZES = [(500, 375), (375, 500), (333, 500), (224, 224), (248, 300), (256, 256), (97, 640), (640, 61), (17, 23), (1, 9)]


def _timm(image: Image.Image, crop: int, crop_pct: float, interpolation: str) -> torch.Tensor:
    transform = timm.data.create_transform(
        crop, is_training=False, crop_pct=crop_pct, interpolation=interpolation, mean=(0.0,) * 3, std=(1.0,) * 3
    )
    return transform(image)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(
    ("crop", "crop_pct", "interpolation"),
    [
        (224, 0.9, "bicubic"),
        (224, 0.875, "bicubic"),
        (224, 0.875, "bilinear"),
        (384, 1.0, "bicubic"),
        (32, 0.95, "nearest"),
    ],
)
def test_recipes_are_timms_to_the_bit(size: tuple[int, int], crop: int, crop_pct: float, interpolation: str) -> None:
    image = photograph(sum(size), size)
    recipe = Recipe(resize=math.floor(crop / crop_pct), crop=crop, interpolation=interpolation)
    ours = stacked([prepared(image, recipe)])[0]
    assert torch.equal(ours, _timm(image, crop, crop_pct, interpolation))


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 120),
    height=st.integers(1, 120),
    crop=st.integers(1, 60),
    ratio=st.sampled_from([0.7, 0.9, 1.0]),
)
def test_any_size_and_crop_agree_with_timm(width: int, height: int, crop: int, ratio: float) -> None:
    image = photograph(width * height, (width, height))
    ours = stacked([prepared(image, Recipe(resize=math.floor(crop / ratio), crop=crop))])[0]
    assert torch.equal(ours, _timm(image, crop, ratio, "bicubic"))


@pytest.mark.parametrize("size", [(3, 8), (8, 3), (5, 5), (4, 7), (20, 5)])
@pytest.mark.parametrize("crop", [5, 6])
def test_a_crop_larger_than_the_picture_is_padded_as_by_torchvision(size: tuple[int, int], crop: int) -> None:
    from torchvision.transforms.functional import center_crop

    image = photograph(3, size)
    assert np.array_equal(prepared(image, Recipe(crop=crop)), center_crop(image, [crop, crop]))


def test_no_recipe_changes_no_pixel_and_every_value_is_a_255th() -> None:
    every_value = Image.fromarray(np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3))
    images = stacked([prepared(every_value, Recipe())])
    assert images.dtype == torch.float32
    assert torch.equal(images[0, 0].flatten(), torch.arange(256, dtype=torch.uint8) / 255)


def test_named_recipes() -> None:
    imagenet, corrupted = suite("imagenet"), suite("imagenet-c")
    assert recipe_named("model", OF_DEIT, imagenet) == recipe_named("train-size", OF_DEIT, imagenet) == DEIT
    assert recipe_named("paper", OF_DEIT, imagenet).id == "resize256-bicubic-crop224"
    # facebookresearch/deit main.py: int(384 / 0.875) = 438
    assert recipe_named("paper", LARGE, imagenet).id == "resize438-bicubic-crop384"
    assert recipe_named("none", OF_DEIT, corrupted).id == "none"
    assert recipe_named("model", LARGE, corrupted).id == "resize384-bicubic-crop384"


def test_a_model_that_is_evaluated_on_larger_images_takes_those_of_its_training_too() -> None:
    larger = Recipes(Recipe(resize=288, crop=288), DEIT)
    imagenet, corrupted = suite("imagenet"), suite("imagenet-c")
    assert recipe_named("model", larger, imagenet).id == "resize288-bicubic-crop288"
    assert recipe_named("train-size", larger, imagenet) == DEIT
    assert recipe_named("paper", larger, imagenet).id == "resize256-bicubic-crop224"
    assert recipe_named("none", larger, corrupted) == Recipe()


def test_none_is_refused_where_sizes_differ_and_where_the_model_takes_another() -> None:
    with pytest.raises(UserError, match="many sizes"):
        recipe_named("none", OF_DEIT, suite("imagenet"))
    with pytest.raises(UserError, match="takes 384") as refused:
        recipe_named("none", LARGE, suite("imagenet-c"))
    assert "resize384-bicubic-crop384" in refused.value.hint
    with pytest.raises(UserError, match="Did you mean paper"):
        recipe_named("papr", OF_DEIT, suite("imagenet"))


def test_a_picture_that_resizing_would_blow_up_is_refused() -> None:
    with pytest.raises(Unreadable, match="too elongated"):
        prepared(Image.new("RGB", (1, 60_000)), DEIT)
