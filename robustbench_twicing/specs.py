"""The frozen vocabulary: what an eps, an attack, a protocol, a model and a threat are. No torch, no files.

Everything here is immutable and has a canonical form, so that two runs that mean the same thing hash the same.
"""

import hashlib
import json
import re
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, model_validator
from pydantic_core import CoreSchema, core_schema

from robustbench_twicing.errors import UserError

Norm = Literal["Linf", "L2"]


def content_hash(content: Any) -> str:
    """First 12 hex digits of the SHA-256 of `content` as canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _terminates(value: Fraction) -> bool:
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1


def _decimal(value: Fraction) -> str:
    """Exact decimal text of a fraction whose denominator has no prime factors but 2 and 5."""
    digits = 0
    while (value * 10**digits).denominator != 1:
        digits += 1
    whole = str(int(value * 10**digits)).rjust(digits + 1, "0")
    return f"{whole[:-digits]}.{whole[-digits:]}" if digits else whole


class Eps:
    """The size of a perturbation, kept exact. Written as papers write it ("1/255"), parsed once, compared by value.

    The unit is that of the protocol's space: a fraction of the pixel range in pixel space, of one channel's standard
    deviation in normalised space.
    """

    __slots__ = ("value",)
    value: Fraction

    def __init__(self, value: Fraction | int) -> None:
        self.value = Fraction(value)

    @classmethod
    def parse(cls, text: str, norm: Norm = "Linf") -> "Eps":
        """Read "k/255", "p/q" or a decimal, exactly. For `norm="Linf"` the value must lie in [0, 1].

        Raises `UserError` with the likely correction for anything else.
        """
        form = "Write eps as a fraction of the pixel range, such as 1/255, 4/255 or 0.03."
        text = str(text).strip()
        parts = re.fullmatch(r"([+-]?\d*\.?\d*(?:[eE][+-]?\d{1,3})?)\s*(?:/\s*(\d+))?", text)
        if parts is None:
            raise UserError(f"eps {text!r} is not a number.", form)
        try:
            top = Fraction(parts[1])
        except ValueError:
            raise UserError(f"eps {text!r} is not a number.", form) from None
        bottom = int(parts[2]) if parts[2] else 1
        if bottom == 0:
            raise UserError(f"eps {text!r} divides by zero.", form)
        value = top / bottom
        if value < 0:
            raise UserError(f"eps {text!r} is negative.", form)
        if norm == "Linf" and value > 1:
            meant = f"Did you mean {cls(value / 255)}? " if value <= 255 else ""
            raise UserError(f"eps {text!r} is larger than the whole pixel range [0, 1].", meant + form)
        return cls(value)

    def __str__(self) -> str:
        value = self.value
        if value == 0:
            return "0"
        if (value * 255).denominator == 1:
            return f"{value * 255}/255"
        if _terminates(value):
            return _decimal(value)
        if _terminates(value * 255):
            return f"{_decimal(value * 255)}/255"
        return f"{value.numerator}/{value.denominator}"

    def __repr__(self) -> str:
        return f"Eps({self})"

    def __float__(self) -> float:
        return float(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Eps) and self.value == other.value

    def __lt__(self, other: "Eps") -> bool:
        return self.value < other.value

    def __hash__(self) -> int:
        return hash(self.value)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def check(value: Any) -> Eps:
            return value if isinstance(value, Eps) else cls.parse(value, norm="L2")

        return core_schema.no_info_plain_validator_function(
            check, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )


class Length:
    """A distance in a protocol file, either tied to eps ("0.125 eps") or fixed ("0.01")."""

    __slots__ = ("amount", "of_eps")

    def __init__(self, amount: float, of_eps: bool) -> None:
        self.amount = amount
        self.of_eps = of_eps

    @classmethod
    def parse(cls, text: Any) -> "Length":
        parts = re.fullmatch(r"\s*(\d*\.?\d+)\s*(eps)?\s*", text) if isinstance(text, str) else None
        if parts is None:
            raise ValueError(f'{text!r} is not a length; write "0.125 eps" (tied to eps) or "0.01" (fixed)')
        return cls(float(parts[1]), parts[2] is not None)

    def at(self, eps: Eps) -> float:
        """The length in the units of eps."""
        return self.amount * float(eps) if self.of_eps else self.amount

    def __str__(self) -> str:
        return f"{self.amount:g} eps" if self.of_eps else f"{self.amount:g}"

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Length) and (self.amount, self.of_eps) == (other.amount, other.of_eps)

    def __hash__(self) -> int:
        return hash((self.amount, self.of_eps))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def check(value: Any) -> Length:
            return value if isinstance(value, Length) else cls.parse(value)

        return core_schema.no_info_plain_validator_function(
            check, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )


class Frozen(BaseModel):
    """A value: immutable, compared by content, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


# --- attacks -----------------------------------------------------------------------------------------------------


class _Attack(Frozen):
    norm: Norm = "Linf"
    suggested_limit: int | None = Field(default=None, ge=1, exclude=True)
    """Samples to attack when the user sets no limit; not part of the hash, since it changes n, not the attack."""

    @property
    def steps_taken(self) -> int:
        """Updates of the image per restart, for the line that states the threat model."""
        return 1


class FgsmSettings(_Attack):
    """One signed gradient step of size eps (Goodfellow et al. 2015, arXiv 1412.6572, eq. in section 4)."""

    algorithm: Literal["fgsm"]


class PgdSettings(_Attack):
    """Iterated signed gradient ascent, projected to the ball (Madry et al. 2018, arXiv 1706.06083)."""

    algorithm: Literal["pgd"]
    steps: int = Field(ge=1)
    step_size: Length
    random_start: bool = True
    restarts: int = Field(default=1, ge=1)

    @property
    def steps_taken(self) -> int:
        return self.steps


class SpsaSettings(_Attack):
    """Gradient-free ascent from paired random probes (Uesato et al. 2018, arXiv 1802.05666, algorithm 1)."""

    algorithm: Literal["spsa"]
    steps: int = Field(ge=1)
    samples: int = Field(ge=1)
    """Random directions per step; each is probed on both sides, so a step costs 2 x samples evaluations."""
    probe_distance: Length
    step_size: Length
    """Adam's learning rate."""
    random_start: bool = False
    probe_center: Literal["current", "twice_clean"] = "current"
    """`twice_clean` repeats the defect of the cleverhans routine that the authors' group copied: the model is probed
    around 2x, never around the current point (cleverhans issue 1249)."""

    @property
    def steps_taken(self) -> int:
        return self.steps


class TorchattacksSettings(_Attack):
    """An attack of the torchattacks package, with every argument written out."""

    algorithm: Literal["torchattacks"]
    attack: str
    arguments: dict[str, bool | int | float | str | None] = {}

    @property
    def steps_taken(self) -> int:
        return int(self.arguments.get("steps") or 1)


AttackSettings = Annotated[
    FgsmSettings | PgdSettings | SpsaSettings | TorchattacksSettings, Field(discriminator="algorithm")
]


class Rules(Frozen):
    """What every attack of a protocol has in common: the threat model apart from eps and algorithm."""

    space: Literal["pixel", "normalized"]
    """`pixel`: images in [0, 1], eps a fraction of the pixel range. `normalized`: the attack sees (x - mean) / std and
    eps is in those units, about 4.4 times weaker for ImageNet's constants (field notes, finding 1)."""
    clip: bool
    """Keep every image inside the valid range of its space."""
    labels: Literal["true", "predicted"]
    """`predicted` attacks the model's own answer on the clean image, right or wrong."""
    iterate: Literal["best", "last"]
    """`best`: robust only if right on clean and no iterate of any restart fools the model. `last`: only the final
    iterate is judged."""

    @model_validator(mode="after")
    def _clip_needs_pixels(self) -> "Rules":
        if self.clip and self.space != "pixel":
            raise ValueError("clip = true needs space = 'pixel': normalised values have no valid range of their own")
        return self


class Protocol(Frozen):
    """A named set of attack settings: one TOML file in attacks/."""

    name: str
    title: str
    source: str
    recipe: Literal["model", "paper"] = "model"
    """Preprocessing of images on disk; embedded data sets are used as they are."""
    rules: Rules
    default_attacks: tuple[str, ...]
    attacks: dict[str, AttackSettings]

    @model_validator(mode="after")
    def _defaults_exist(self) -> "Protocol":
        for name in self.default_attacks:
            if name not in self.attacks:
                raise ValueError(f"default_attacks names {name!r}, which is not under [attacks]")
        return self


# --- threats -----------------------------------------------------------------------------------------------------


class CleanThreat(Frozen):
    """The images as they are."""

    kind: Literal["clean"] = "clean"

    @property
    def id(self) -> str:
        return "clean"

    @property
    def hash(self) -> str:
        return content_hash({"kind": "clean"})


class AttackThreat(Frozen):
    """One attack at one eps under one protocol."""

    kind: Literal["attack"] = "attack"
    protocol: str
    attack: str
    eps: Eps
    rules: Rules
    settings: AttackSettings

    @property
    def id(self) -> str:
        """Such as `pgd-linf-1/255`; unique within a protocol."""
        return f"{self.attack}-{self.settings.norm.lower()}-{self.eps}"

    @property
    def hash(self) -> str:
        """The protocol's hash for this attack: rules and settings, not eps (which stands beside it) nor the name.

        Editing one attack of a protocol leaves the others comparable.
        """
        return content_hash({"rules": self.rules.model_dump(), "settings": self.settings.model_dump(mode="json")})

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Valid range of the images in the attack's space, or None when the protocol does not clip."""
        return (0.0, 1.0) if self.rules.clip else None


Threat = Annotated[CleanThreat | AttackThreat, Field(discriminator="kind")]


# --- models and data ---------------------------------------------------------------------------------------------

Layers = Literal["none", "all", "last3"] | tuple[int, ...]


class ModelSpec(Frozen):
    """Which network, with which attention in which blocks, and whose weights."""

    name: str
    """What the user calls it; unique within a plan."""
    architecture: str
    """A timm model name. It says nothing about twicing: see `twicing`."""
    twicing: Layers = "none"
    """Blocks (from 0) whose softmax attention A is replaced by 2A - A²."""
    weights: str
    """`package:FILE`, `timm:NAME`, `hf-hub:NAME` or `file:PATH`."""


class DataSpec(Frozen):
    """A data set and how much of it."""

    name: str
    directory: str | None = None
    limit: int | None = Field(default=None, ge=1)
    """Samples per threat; None takes all of them, or the attack's `suggested_limit`."""


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
