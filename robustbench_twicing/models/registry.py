"""Our architectures, registered with timm on import, so that `timm.create_model` builds them."""

import sys
from collections.abc import Callable
from typing import Any

import timm
from timm.models import deit, register_model
from timm.models._builder import build_model_with_cfg
from timm.models._registry import generate_default_cfgs
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from robustbench_twicing.attention.convert import apply_twicing
from robustbench_twicing.errors import UserError

TWICING_OF = {
    "deit_tiny_twicing_patch16_224": "deit_tiny_patch16_224",
    "deit_small_twicing_patch16_224": "deit_small_patch16_224",
    "deit_base_twicing_patch16_224": "deit_base_patch16_224",
    "deit_tiny_distilled_twicing_patch16_224": "deit_tiny_distilled_patch16_224",
    "deit_small_distilled_twicing_patch16_224": "deit_small_distilled_patch16_224",
    "deit_base_distilled_twicing_patch16_224": "deit_base_distilled_patch16_224",
}
"""Registered name -> the timm architecture it is made from. Both have the same state-dict keys."""

EMBEDDED = ("deit_digits_patch8_32",)
"""Architectures for data sets that ship with the tool, whose images need no preprocessing."""

default_cfgs = generate_default_cfgs(
    {
        "deit_digits_patch8_32": {
            "num_classes": 10,
            "input_size": (3, 32, 32),
            "crop_pct": 1.0,
            "interpolation": "bilinear",
            "fixed_input_size": True,
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        }
    }
)
"""What timm knows about an architecture, in timm's form; `register_model` looks for this name."""


def deit_digits_patch8_32(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """A DeiT for 32 x 32 images: 16 patches, width 64, 6 blocks of 4 heads, 10 classes, 314 thousand parameters."""
    shape = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 6, "num_heads": 4, "mlp_ratio": 4.0}
    model: nn.Module = build_model_with_cfg(
        VisionTransformer, "deit_digits_patch8_32", pretrained, **{**shape, "qkv_bias": True, **kwargs}
    )
    return model


def _twicing_entrypoint(name: str, origin: str) -> Callable[..., nn.Module]:
    def build(pretrained: bool = False, layers: Any = "all", **kwargs: Any) -> nn.Module:
        if pretrained:
            raise UserError(
                f"There are no published weights for {name}.",
                f"Use pretrained=False and load a checkpoint, or apply_twicing to a pretrained {origin}.",
            )
        result: nn.Module = apply_twicing(getattr(deit, origin)(pretrained=False, **kwargs), layers)
        return result

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"timm's {origin} with twicing attention in `layers` (see `apply_twicing`)."
    return build


def _register() -> None:
    """Register every architecture once; timm would warn about a second time."""
    entrypoints = [_twicing_entrypoint(name, origin) for name, origin in TWICING_OF.items()]
    for entrypoint in [deit_digits_patch8_32, *entrypoints]:
        setattr(sys.modules[__name__], entrypoint.__name__, entrypoint)
        if not timm.is_model(entrypoint.__name__):
            register_model(entrypoint)


_register()
