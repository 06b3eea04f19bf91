"""How images on disk are prepared for a model: as those who published its weights evaluate it."""

import math
from typing import Any, NamedTuple

from robustbench_twicing.errors import UserError
from robustbench_twicing.models.registry import EMBEDDED
from robustbench_twicing.spec.models import PAPER_CROP_RATIO, ModelSpec, Recipe, Recipes


class Preprocessing(NamedTuple):
    """What a network's settings say of its images."""

    recipes: Recipes
    image_size: int
    """Side, in pixels, of the images that it is evaluated on."""
    whose: str
    """Whose preprocessing it is, such as `timm's resnet18.a1_in1k`."""
    note: str
    """What somebody might expect otherwise."""


def preprocessing_of(spec: ModelSpec, settings: dict[str, Any]) -> Preprocessing:
    """Of timm's `settings` of a network, by timm's convention of evaluation (`use_test_size`).

    Where weights are evaluated on larger images than they were trained on, those are `recipes.evaluated`. A file of
    DeiT's family that names no tag is prepared as facebookresearch/deit and the twicing repository prepare images:
    shorter side to 256, where timm's weights of those networks have 248. Raises `UserError` unless images are square.
    """
    evaluated = settings.get("test_input_size") or settings["input_size"]
    height, width = evaluated[1:]
    if height != width:
        raise UserError(
            f"Model {spec.name!r} takes images of {width} x {height} pixels.", "Only square images can be prepared."
        )
    if spec.architecture in EMBEDDED:
        return Preprocessing(Recipes(Recipe(), Recipe()), width, "the data set's own", "")
    tag = settings.get("tag")
    named = spec.architecture if "." in spec.architecture or not tag else f"{spec.architecture}.{tag}"
    trained = settings["input_size"][-1]
    ratio = settings.get("crop_pct") or 0.875
    own = resized(trained, ratio, settings.get("interpolation"))
    if _is_deits_file(spec):
        theirs = resized(trained, PAPER_CROP_RATIO, "bicubic")
        note = f"resize {theirs.resize} as DeiT's authors evaluate; timm's {own.resize} goes by the name {named}"
        return Preprocessing(Recipes(theirs, theirs), width, "facebookresearch/deit", "" if own == theirs else note)
    larger = resized(width, settings.get("test_crop_pct") or ratio, settings.get("interpolation"))
    note = f"timm evaluates it at {width} pixels, trained at {trained} (--recipe train-size)"
    return Preprocessing(Recipes(larger, own), width, f"timm's {named}", "" if width == trained else note)


def resized(size: int, ratio: float, interpolation: str | None) -> Recipe:
    """timm's evaluation preprocessing: shorter side to `size` over `ratio`, rounded down, then `size` from the centre.

    An `interpolation` that PIL does not name so is bicubic.
    """
    usual = interpolation if interpolation in ("nearest", "bilinear") else "bicubic"
    return Recipe.model_validate({"resize": math.floor(size / ratio), "crop": size, "interpolation": usual})


def _is_deits_file(spec: ModelSpec) -> bool:
    """DeiT III is none: its authors crop nothing off, and neither does timm."""
    return spec.weights.startswith("file:") and spec.architecture.startswith("deit_") and "." not in spec.architecture
