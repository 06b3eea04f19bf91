"""From a picture to a model's input: the named recipes, computed exactly as timm's evaluation does.

A recipe ends before normalisation, which is inside the model. Its steps are torchvision's `Resize` (shorter side, by
PIL) and `CenterCrop`, written out; a test holds them to `timm.data.create_transform` bit by bit.
"""

import math
from collections.abc import Sequence
from typing import get_args

import numpy as np
import torch
from PIL import Image

from robustbench_twicing.data.decode import MAX_PIXELS, Unreadable
from robustbench_twicing.errors import UserError, unknown_name
from robustbench_twicing.spec.models import PAPER_CROP_RATIO, Recipe, RecipeName, Recipes
from robustbench_twicing.spec.suite import SuiteSpec
from robustbench_twicing.tensors import Images

RECIPES: tuple[str, ...] = get_args(RecipeName)

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


def recipe_named(name: str, own: Recipes, suite: SuiteSpec) -> Recipe:
    """The recipe that `name` stands for, given the model's own and the suite.

    `model`: as those who published the model evaluate it. `train-size`: the same at the size it was trained at.
    `paper`: shorter side to crop / 0.875, bicubic, then that size (256 and 224). `none`: the images as they are. Raises
    `UserError` for an unknown name, and for `none` where the images do not all have a size that the model takes.
    """
    if name == "model":
        return own.evaluated
    if name == "train-size":
        return own.trained
    if name == "paper":
        crop = own.trained.crop or 224
        return Recipe(resize=math.floor(crop / PAPER_CROP_RATIO), crop=crop, interpolation="bicubic")
    if name != "none":
        raise unknown_name("recipe", name, RECIPES)
    if suite.image_size is None:
        raise UserError(
            f"Suite {suite.name!r} has images of many sizes, so recipe 'none' cannot be used.",
            "Use --recipe model (the model's own crop) or --recipe paper (256 bicubic, crop 224).",
        )
    if not own.takes(suite.image_size):
        takes, asked = own.evaluated.crop, own.evaluated.id
        raise UserError(
            f"The images of {suite.name!r} are {suite.image_size} pixels wide and the model takes {takes}.",
            f"Resizing them is another protocol: ask for it with --recipe model, and its rows say {asked!r}.",
        )
    return Recipe()


def prepared(image: Image.Image, recipe: Recipe) -> Image.Image:
    """The picture after `recipe`. Raises `Unreadable` if the resized picture would be too large to hold."""
    if recipe.resize is not None:
        image = _resized(image, recipe.resize, _RESAMPLING[recipe.interpolation])
    return image if recipe.crop is None else _cropped(image, recipe.crop)


def _resized(image: Image.Image, shorter: int, resampling: Image.Resampling) -> Image.Image:
    # As torchvision's Resize: the longer side is truncated, and a picture of the right size is left alone.
    width, height = image.size
    scaled = int(shorter * max(width, height) / min(width, height))
    size = (shorter, scaled) if width <= height else (scaled, shorter)
    if size == image.size:
        return image
    if size[0] * size[1] > MAX_PIXELS:
        raise Unreadable(f"too elongated: {width} x {height} pixels become {size[0]} x {size[1]} when resized")
    return image.resize(size, resampling)


def _cropped(image: Image.Image, size: int) -> Image.Image:
    # As torchvision's CenterCrop: a smaller picture is first padded with black, then cropped like others.
    width, height = image.size
    if width < size or height < size:
        canvas = Image.new("RGB", (max(width, size), max(height, size)))
        canvas.paste(image, (max(0, size - width) // 2, max(0, size - height) // 2))
        image, (width, height) = canvas, canvas.size
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def stacked(pictures: Sequence[Image.Image]) -> Images:
    """RGB pictures of one size as (batch, 3, height, width) in [0, 1]: value / 255 in float32, as torchvision does.

    No picture gives shape (0, 3, 0, 0).
    """
    width, height = pictures[0].size if pictures else (0, 0)
    images = torch.empty((len(pictures), 3, height, width))
    for row, picture in zip(images.numpy(), pictures, strict=True):
        # In numpy, which keeps to this thread: torch would start threads of its own inside each decoding thread.
        np.divide(np.asarray(picture).transpose(2, 0, 1), np.float32(255), out=row)
    return images
