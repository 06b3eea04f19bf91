"""A training recipe: all that trains a model beside its network, method, data and seed. One TOML file in recipes/."""

import re
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from robustbench_twicing.errors import UserError
from robustbench_twicing.spec.values import Eps, Frozen, Length, content_hash

_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_BelowOne = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
_Size = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Above = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class OptimizerSettings(Frozen):
    """An optimizer of `timm.optim.create_optimizer_v2`, and the longest gradient (0 for any)."""

    name: Literal["adamw", "sgd", "lamb"]
    learning_rate: _Above
    """The highest, for the recipe's batch."""
    betas: tuple[_BelowOne, _BelowOne]
    eps: _Size
    weight_decay: _Size
    decays: Literal["all", "matrices"]
    """`matrices`: weight decay leaves biases, norms, position embeddings and class tokens alone."""
    clip_norm: _Size


class Schedule(Frozen):
    """The learning rate over time: linear warm-up and cosine."""

    name: Literal["cosine", "warmup-then-cosine"]
    """`cosine`: timm's, whose beginning the warm-up hides. `warmup-then-cosine`: the cosine begins behind it."""
    per: Literal["epoch", "update"]
    warmup_epochs: Annotated[int, Field(ge=0)]
    first_learning_rate: _Size
    last_learning_rate: _Size

    @model_validator(mode="after")
    def _ours_ends_at_zero(self) -> "Schedule":
        ours = self.name == "warmup-then-cosine"
        if ours and (self.first_learning_rate, self.last_learning_rate, self.per) != (0, 0, "update"):
            raise ValueError("warmup-then-cosine begins and ends at 0, and changes with every update")
        return self


class Affine(Frozen):
    """Turns, scales and shifts of a whole batch in memory, uniform in plus or minus."""

    kind: Literal["affine"]
    degrees: _Size
    scale: _BelowOne
    """A factor of 1 plus or minus this."""
    shift: _BelowOne
    """A fraction of the image's width."""


class TimmAugmentation(Frozen):
    """The training transform of `timm.data.create_transform`, every argument said."""

    kind: Literal["timm"]
    crop_area: tuple[_Above, _Above]
    crop_ratio: tuple[_Above, _Above]
    interpolation: Literal["bilinear", "bicubic"]
    flip: _Share
    color_jitter: _Size
    auto_augment: str
    erase: _Share
    erase_with: Literal["const", "rand", "pixel"]
    erase_count: Annotated[int, Field(ge=1)]
    repeats: Annotated[int, Field(ge=1, le=100)]
    """How often an image comes in one batch, each time augmented anew (Hoffer et al. 2020, arXiv 1901.09335)."""

    @model_validator(mode="after")
    def _ranges_rise(self) -> "TimmAugmentation":
        if self.crop_area[0] > self.crop_area[1] or self.crop_area[1] > 1 or self.crop_ratio[0] > self.crop_ratio[1]:
            raise ValueError("crop_area and crop_ratio are two rising numbers, areas of 1 at most")
        return self


class Windows(Frozen):
    """No augmentation: windows of a text, behind one another from another place in each epoch."""

    kind: Literal["windows"]
    tokens: Annotated[int, Field(ge=2, le=4096)]


class Mixing(Frozen):
    """Mixup and CutMix within a micro-batch: their alphas, whether at all, and which of both."""

    mixup: _Size
    cutmix: _Size
    probability: _Share
    switch: _Share

    @property
    def active(self) -> bool:
        return self.probability > 0 and (self.mixup > 0 or self.cutmix > 0)


class Regularisation(Frozen):
    """Label smoothing and stochastic depth."""

    label_smoothing: _BelowOne
    drop_path: _BelowOne


class Average(Frozen):
    """The moving average of the weights; no average with a decay of 0."""

    decay: _BelowOne


class Adversarial(Frozen):
    """Training on attacked images (Madry et al. 2018, arXiv 1706.06083): PGD in the L∞ ball, from a random start."""

    steps: Annotated[int, Field(ge=1, le=1000)]
    eps: Eps
    """A fraction of the pixel range."""
    step_size: Length

    @classmethod
    def parse(cls, attack: str, eps: str) -> "Adversarial":
        """Read `pgd-2` and an eps; steps of 2.5 eps over their number, as Madry et al. have. Raises `UserError`."""
        found = re.fullmatch(r"pgd-([1-9]\d{0,2})", attack, re.ASCII)
        size = Eps.parse(eps)
        if found is None or not size.value:
            raise UserError(
                f"--adversarial {attack} --eps {eps} is no attack to train against.",
                "Write pgd-2 or another number of steps, and an eps above 0 such as 4/255.",
            )
        return cls(steps=int(found[1]), eps=size, step_size=Length(Fraction(5, 2 * int(found[1])), of_eps=True))


class TrainingRecipe(Frozen):
    """A named recipe. No key has a default: nothing hangs on timm's."""

    name: str
    title: str
    source: str
    epochs: Annotated[int, Field(ge=0)]
    batch: Annotated[int, Field(ge=1)]
    """Images of one update, over all processes and micro-batches."""
    optimizer: OptimizerSettings
    schedule: Schedule
    augmentation: Annotated[Affine | TimmAugmentation | Windows, Field(discriminator="kind")]
    mixing: Mixing
    regularisation: Regularisation
    average: Average
    ramp_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs in which the strength of the method rises from 0, linearly with every update; 0 and left out: none."""
    adversarial: Adversarial | None = None
    """What images are attacked by before the network sees them, if by anything; in no file: `--adversarial` says it."""

    @property
    def hash(self) -> str:
        """12 hex digits of all but name, title and source."""
        return content_hash(self.content)

    @property
    def content(self) -> dict[str, Any]:
        """All that decides weights."""
        unsaid = {"name", "title", "source"} | ({"adversarial"} if self.adversarial is None else set())
        unsaid |= set() if self.ramp_epochs else {"ramp_epochs"}  # as hashed before there were ramps
        return self.model_dump(mode="json", exclude=unsaid)

    @model_validator(mode="after")
    def _warmup_ends(self) -> "TrainingRecipe":
        if self.epochs and 2 * self.schedule.warmup_epochs > self.epochs:
            raise ValueError("schedule.warmup_epochs is more than half of epochs")
        if self.ramp_epochs > self.epochs:
            raise ValueError("ramp_epochs is more than epochs")
        return self


class TrainTable(Frozen):
    """`[train]` of a plan file: which arms are trained before the plan is carried out."""

    models: Annotated[tuple[str, ...], Field(min_length=1)]
    seeds: Annotated[tuple[Annotated[int, Field(strict=True, ge=0, lt=10**6)], ...], Field(min_length=1)] = (0,)
    recipe: str | None = None
    directory: str | None = None
    """Of the images to train on; left out: that of the plan's data set."""
    out: str | None = None
    """The folder of the weights; left out: results/trained/PLAN."""
    start: str | None = Field(default=None, alias="from")
    control: Annotated[bool, Field(strict=True)] = False
    adversarial: str | None = None
    eps: str | None = None
