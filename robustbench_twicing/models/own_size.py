"""The size of the images that a model of the user's own takes, as far as its parts say it."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

USUAL_SIZES = (224, 384, 256, 288, 299, 336, 448, 512, 32, 64, 96, 128)
"""Sides of images that are tried on a model that does not say its own, the likeliest first."""
_ATTRIBUTES = ("img_size", "image_size", "input_size")
"""By which modules and configurations of timm, torchvision and transformers say it."""
_MOST = 4096


def stated_sizes(module: nn.Module) -> Iterator[int]:
    """Sides of square images that the module's parts say they take: as built, before as published."""
    parts = list(module.modules())
    for part in parts:
        yield from _side(getattr(getattr(part, "patch_embed", None), "img_size", None))
    for part in parts:
        for settings in (getattr(part, "pretrained_cfg", None), getattr(part, "default_cfg", None)):
            if isinstance(settings, Mapping):
                yield from _side(settings.get("input_size"))
    for part in parts:
        for holder in (part, getattr(part, "config", None)):
            for attribute in _ATTRIBUTES:
                yield from _side(getattr(holder, attribute, None))


def _side(size: Any) -> Iterator[int]:
    sides = size[-2:] if isinstance(size, tuple | list) else (size, size)
    if len(sides) == 2 and sides[0] == sides[1] and all(type(side) is int and 1 <= side <= _MOST for side in sides):
        yield sides[0]
