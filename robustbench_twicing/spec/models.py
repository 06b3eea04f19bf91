"""A model: which network, with which attention, whose weights, and how images are prepared for it."""

from typing import Literal, NamedTuple

from robustbench_twicing.spec.methods import Attention
from robustbench_twicing.spec.values import Frozen


class ModelSpec(Frozen):
    """Which network, with which attention in which blocks, and whose weights."""

    name: str
    """What the user calls it; unique within a plan."""
    architecture: str
    """A timm model name. It says nothing about the method of attention: see `attention`."""
    attention: Attention = Attention()
    """Which method each block has, such as `twicing@last3`; softmax unless said."""
    weights: str
    """`package:FILE`, `timm:NAME`, `hf-hub:NAME` or `file:PATH`; of one that its own code builds
    `python:MODULE:NAME` or `plugin:NAME`; of one in memory `memory:IDENTITY` or `memory:IDENTITY@VERSION`."""
    prefer: Literal["raw", "ema"] = "raw"
    """Which weights of a training checkpoint: those of the last step, or their moving average."""
    resample_pos_embed: bool = False
    """Interpolate position embeddings of another image size; otherwise they are refused."""

    @property
    def in_memory(self) -> bool:
        """A model of the user's own, whose code nobody here can see."""
        return self.weights.startswith("memory:")

    @property
    def is_plugged(self) -> bool:
        """Code of the user's or of another package builds it, by name."""
        return self.weights.startswith(("python:", "plugin:"))

    @property
    def reusable(self) -> bool:
        """Its finished samples may be used again: it is not in memory, or the user gave it a version."""
        return not self.in_memory or "@" in self.weights


class Recipe(Frozen):
    """How an image on disk becomes a model's input: shorter side to `resize`, then a centre crop of `crop` pixels."""

    resize: int | None = None
    crop: int | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bicubic"

    @property
    def id(self) -> str:
        """Such as `resize248-bicubic-crop224`; `none` leaves the pixels alone."""
        parts = [f"resize{self.resize}-{self.interpolation}"] if self.resize else []
        parts += [f"crop{self.crop}"] if self.crop else []
        return "-".join(parts) or "none"


RecipeName = Literal["model", "train-size", "paper", "none"]
"""What recipes go by: `data.transforms.recipe_named`."""


class Recipes(NamedTuple):
    """A model's own recipes."""

    evaluated: Recipe
    """As those who published it evaluate it."""
    trained: Recipe
    """The same at the size that it was trained at; mostly the same altogether."""

    def takes(self, side: int | None) -> bool:
        """Whether images of this side, in pixels, are what the model is made for."""
        sizes = (self.evaluated.crop, self.trained.crop)
        return None in sizes or side in sizes


PAPER_CROP_RATIO = 0.875
"""facebookresearch/deit main.py, --eval-crop-ratio; the twicing repository's too. 256 for a crop of 224."""
