"""The frozen vocabulary: what an eps, an attack, a protocol, a model and a threat are. No torch, no files.

Everything here is immutable and has a canonical form, so that two runs that mean the same thing hash the same.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from fractions import Fraction
from math import prod
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


def _read_fraction(text: str) -> Fraction:
    """ "p/q", a decimal, or a decimal over a whole number, exactly. Raises `ValueError` or `ZeroDivisionError`."""
    parts = re.fullmatch(r"([+-]?\d*\.?\d*(?:[eE][+-]?\d{1,2})?)\s*(?:/\s*(\d+))?", text, re.ASCII)
    if parts is None:
        raise ValueError(text)
    value = Fraction(parts[1]) / int(parts[2] or 1)
    # Nobody means a number this long, and Python refuses to print much longer ones.
    if max(abs(value.numerator), value.denominator) > 10**40:
        raise ValueError(text)
    return value


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
        try:
            value = _read_fraction(text)
        except ValueError:
            raise UserError(f"eps {text!r} is not a number.", form) from None
        except ZeroDivisionError:
            raise UserError(f"eps {text!r} divides by zero.", form) from None
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
    """A positive distance in a protocol file, kept exact: tied to eps ("0.125 eps") or fixed ("0.01", "2/255")."""

    __slots__ = ("amount", "of_eps")
    amount: Fraction
    of_eps: bool

    def __init__(self, amount: Fraction, of_eps: bool) -> None:
        self.amount = amount
        self.of_eps = of_eps

    @classmethod
    def parse(cls, text: Any) -> "Length":
        """Read a length. Raises `ValueError` for anything else, zero and negative lengths included."""
        parts = re.fullmatch(r"(.*?)\s*(eps)?", text.strip()) if isinstance(text, str) else None
        try:
            amount = _read_fraction(parts[1]) if parts else Fraction(0)
        except (ValueError, ZeroDivisionError):
            amount = Fraction(0)
        if parts is None or amount <= 0:
            raise ValueError(f'{text!r} is not a length; write "0.125 eps" (tied to eps) or "0.01" (fixed)')
        return cls(amount, parts[2] is not None)

    def at(self, eps: Eps) -> float:
        """The length in the units of eps."""
        return float(self.amount * eps.value if self.of_eps else self.amount)

    def __str__(self) -> str:
        amount = self.amount
        text = _decimal(amount) if _terminates(amount) else f"{amount.numerator}/{amount.denominator}"
        return f"{text} eps" if self.of_eps else text

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

    @property
    def evaluations(self) -> int:
        """Evaluations of the model that one sample costs at most, the final judgement included. For estimates only."""
        return self.steps_taken + 1

    @property
    def side_by_side(self) -> int:
        """How many of a sample's evaluations do not wait for each other."""
        return 1

    @property
    def gradients(self) -> int | None:
        """Input gradients that one sample costs at most; None if nobody knows. For estimates only."""
        return self.steps_taken


class FgsmSettings(_Attack):
    """One gradient step of size eps: signed for Linf (Goodfellow et al. 2015, arXiv 1412.6572, section 4), along the
    normalised gradient for L2."""

    algorithm: Literal["fgsm"]


class PgdSettings(_Attack):
    """Iterated gradient ascent, projected to the ball: signed for Linf, normalised for L2 (Madry et al. 2018, arXiv
    1706.06083)."""

    algorithm: Literal["pgd"]
    steps: int = Field(ge=1)
    step_size: Length
    random_start: bool = True
    restarts: int = Field(default=1, ge=1)

    @property
    def steps_taken(self) -> int:
        return self.steps

    @property
    def evaluations(self) -> int:
        return (self.steps + 1) * self.restarts

    @property
    def gradients(self) -> int:
        return self.steps * self.restarts


class SpsaSettings(_Attack):
    """Gradient-free ascent from paired random probes (Uesato et al. 2018, arXiv 1802.05666, algorithm 1)."""

    algorithm: Literal["spsa"]
    norm: Literal["Linf"] = "Linf"
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

    @property
    def evaluations(self) -> int:
        return self.steps * (2 * self.samples + 1)

    @property
    def side_by_side(self) -> int:
        return 2 * self.samples

    @property
    def gradients(self) -> int:
        return 0


class ApgdSettings(_Attack):
    """Auto-PGD: momentum and a step size that halves itself (Croce & Hein 2020, arXiv 2003.01690, algorithm 1)."""

    algorithm: Literal["apgd"]
    loss: Literal["ce", "dlr"] = "ce"
    steps: int = Field(ge=1)
    restarts: int = Field(default=1, ge=1)

    @property
    def steps_taken(self) -> int:
        return self.steps

    @property
    def evaluations(self) -> int:
        return (self.steps + 1) * self.restarts + 1

    @property
    def gradients(self) -> int:
        return self.steps * self.restarts


class ApgdTargetedSettings(_Attack):
    """Auto-PGD with the targeted DLR loss, one target class after the other (Croce & Hein 2020, arXiv 2003.01690,
    section 4)."""

    algorithm: Literal["apgd-t"]
    steps: int = Field(ge=1)
    targets: int = Field(ge=1)
    """Wrong classes to aim at, those that the clean logits rank highest first; at most all there are."""
    restarts: int = Field(default=1, ge=1)

    @property
    def steps_taken(self) -> int:
        return self.steps

    @property
    def evaluations(self) -> int:
        return (self.steps + 1) * self.targets * self.restarts + 2

    @property
    def gradients(self) -> int:
        return self.steps * self.targets * self.restarts


class SquareSettings(_Attack):
    """Random search with square windows, without gradients (Andriushchenko et al. 2020, arXiv 1912.00049)."""

    algorithm: Literal["square"]
    queries: int = Field(ge=1)
    """Squares that are tried; the image that they are put on costs one evaluation more."""
    p_init: float = Field(gt=0, le=1)
    """Fraction of the pixels that the first square covers."""

    @property
    def steps_taken(self) -> int:
        return self.queries

    @property
    def evaluations(self) -> int:
        return self.queries + 2

    @property
    def gradients(self) -> int:
        return 0


class MifgsmSettings(_Attack):
    """Iterated steps along an accumulated gradient (Dong et al. 2018, arXiv 1710.06081, algorithm 1)."""

    algorithm: Literal["mifgsm"]
    steps: int = Field(ge=1)
    step_size: Length
    decay: float = Field(ge=0)
    """What is kept of the accumulated gradient in each step; 0 keeps nothing."""

    @property
    def steps_taken(self) -> int:
        return self.steps


class NoiseSettings(_Attack):
    """Uniform random points of the ball: what an attack must do better than."""

    algorithm: Literal["noise"]
    trials: int = Field(ge=1)

    @property
    def steps_taken(self) -> int:
        return self.trials

    @property
    def evaluations(self) -> int:
        return self.trials

    @property
    def gradients(self) -> int:
        return 0


# What torchattacks calls the number of steps, and what multiplies the evaluations of a step.
_STEPS = ("steps", "nb_iter", "num_iter_set", "n_queries")
_REPEATS = ("n_restarts", "eot_iter", "noise_batch_size", "nb_sample", "m", "N")


class TorchattacksSettings(_Attack):
    """An attack of the torchattacks package, with every argument written out.

    An argument tied to eps is a length such as "0.25 eps"; the run fills in `norm`, `seed` and `verbose`, and lowers
    `n_classes` to what the model has.
    """

    algorithm: Literal["torchattacks"]
    attack: str
    """Class name in torchattacks, such as `APGD`."""
    arguments: dict[str, bool | int | float | str | None] = {}

    def __hash__(self) -> int:  # pydantic's own cannot hash a dict
        return hash(content_hash(self.model_dump(mode="json")))

    @property
    def steps_taken(self) -> int:
        return next((int(self.arguments[name] or 1) for name in _STEPS if name in self.arguments), 1)

    @property
    def gradients(self) -> None:
        return None

    @property
    def evaluations(self) -> int:
        if self.attack == "AutoAttack":  # nearly all of them are the queries of Square
            return 5300
        repeats = prod(int(self.arguments.get(name) or 1) for name in _REPEATS)
        if self.attack == "APGDT" or self.arguments.get("multi_targeted"):
            repeats *= int(self.arguments.get("n_classes") or 2) - 1
        return self.steps_taken * repeats * (2 if self.attack in ("SPSA", "FAB") else 1) + 1


class SequenceSettings(_Attack):
    """Several attacks one after the other, each on the samples that still stand: a sample's worst case over all of
    them, as AutoAttack is made (Croce & Hein 2020, arXiv 2003.01690, section 6).

    A member draws as it does on its own, so its verdict on a sample is that of its own row.
    """

    algorithm: Literal["sequence"]
    members: dict[str, "AttackSettings"] = Field(min_length=1)
    """In this order. In a protocol file: names of attacks of the same file."""

    def __hash__(self) -> int:
        return hash(content_hash(self.model_dump(mode="json")))

    @model_validator(mode="after")
    def _one_norm(self) -> "SequenceSettings":
        for name, member in self.members.items():
            if isinstance(member, SequenceSettings):
                raise ValueError(f"{name} is a sequence itself; name its members instead")
            if member.norm != self.norm:
                raise ValueError(f"{name} has norm {member.norm}, the sequence {self.norm}")
        return self

    @property
    def steps_taken(self) -> int:
        return sum(member.steps_taken for member in self.members.values())

    @property
    def evaluations(self) -> int:
        return sum(member.evaluations for member in self.members.values())

    @property
    def gradients(self) -> int | None:
        each = [member.gradients for member in self.members.values()]
        known = [count for count in each if count is not None]
        return sum(known) if len(known) == len(each) else None


AttackSettings = Annotated[
    FgsmSettings
    | PgdSettings
    | SpsaSettings
    | ApgdSettings
    | ApgdTargetedSettings
    | SquareSettings
    | MifgsmSettings
    | NoiseSettings
    | TorchattacksSettings
    | SequenceSettings,
    Field(discriminator="algorithm"),
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

    @model_validator(mode="before")
    @classmethod
    def _members_by_name(cls, content: Any) -> Any:
        """A sequence names its members; here they get their settings."""
        attacks = content.get("attacks") if isinstance(content, dict) else None
        if not isinstance(attacks, dict):
            return content

        def resolved(name: str, settings: Any) -> Any:
            if not isinstance(settings, dict) or not isinstance(settings.get("members"), list):
                return settings
            unknown = [member for member in settings["members"] if member not in attacks]
            if unknown:
                raise ValueError(f"members of {name} are not under [attacks]: {', '.join(map(repr, unknown))}")
            return {**settings, "members": {member: attacks[member] for member in settings["members"]}}

        return {**content, "attacks": {name: resolved(name, settings) for name, settings in attacks.items()}}

    @model_validator(mode="after")
    def _defaults_exist(self) -> "Protocol":
        for name in self.default_attacks:
            if name not in self.attacks:
                raise ValueError(f"default_attacks names {name!r}, which is not under [attacks]")
        return self

    @model_validator(mode="after")
    def _restarts_are_judged(self) -> "Protocol":
        if self.rules.iterate == "last":
            for name, settings in self.attacks.items():
                if isinstance(settings, SequenceSettings):
                    raise ValueError(f"{name} is a sequence, whose members get survivors: it needs iterate = 'best'")
                for key in ("restarts", "targets", "trials"):
                    if (count := getattr(settings, key, 1)) > 1:
                        raise ValueError(f"{name} has {key} = {count}, but iterate = 'last' judges only the last one")
        return self


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
    prefer: Literal["raw", "ema"] = "raw"
    """Which weights of a training checkpoint: those of the last step, or their moving average."""
    resample_pos_embed: bool = False
    """Interpolate position embeddings of another image size; otherwise they are refused."""


# --- threats -----------------------------------------------------------------------------------------------------


class _Threat(Frozen):
    """What all threats can be asked."""

    @property
    def id(self) -> str:
        """Canonical name, unique within a plan."""
        raise NotImplementedError

    @property
    def hash(self) -> str:
        """Rows with different hashes are not comparable."""
        return content_hash(self.model_dump(mode="json"))

    def columns(self) -> dict[str, str | int]:
        """What a record says about its threat."""
        empty: dict[str, str | int] = {
            "attack": "",
            "eps": "",
            "suite": "",
            "corruption": "",
            "severity": 0,
            "protocol": "",
        }
        return {"threat": self.id, "protocol_hash": self.hash, **empty}


class CleanThreat(_Threat):
    """The images as they are."""

    kind: Literal["clean"] = "clean"
    classes_of: str | None = None
    """Only the samples, and the logits, of this suite's classes: what its drop is measured from."""

    @property
    def id(self) -> str:
        """`clean`, or such as `clean[imagenet-a]`."""
        return f"clean[{self.classes_of}]" if self.classes_of else "clean"

    def columns(self) -> dict[str, str | int]:
        return {**super().columns(), "kind": self.kind}


Precision = Literal["float32", "tf32", "bfloat16"]
"""What an attack computes in. Verdicts are always float32's."""


class AttackThreat(_Threat):
    """One attack at one eps under one protocol."""

    kind: Literal["attack"] = "attack"
    protocol: str
    attack: str
    eps: Eps
    rules: Rules
    settings: AttackSettings
    precision: Precision = "float32"
    """The attack's own computations; whether it succeeded is decided in float32."""
    eight_bit: bool = False
    """Judge every attacked image once more with its pixels rounded to 8 bits, as a picture file would hold it."""
    source: ModelSpec | None = None
    """Another model that the images are made on, to be judged by this one (a transfer attack)."""

    @property
    def id(self) -> str:
        """Such as `pgd-linf-1/255`, or `pgd-linf-1/255-from-deit` for a transfer; unique within a protocol."""
        source = f"-from-{self.source.name}" if self.source else ""
        return f"{self.attack}-{self.settings.norm.lower()}-{self.eps}{source}"

    @property
    def hash(self) -> str:
        """The protocol's hash for this attack: rules and settings, not eps (which stands beside it) nor the name.

        Editing one attack of a protocol leaves the others comparable.
        """
        content: dict[str, Any] = {"rules": self.rules.model_dump(), "settings": self.settings.model_dump(mode="json")}
        usual = {name: AttackThreat.model_fields[name].default for name in ("precision", "eight_bit", "source")}
        chosen = self.model_dump(mode="json", include=set(usual))
        return content_hash(content | {name: value for name, value in chosen.items() if value != usual[name]})

    @property
    def members(self) -> tuple["AttackThreat", ...]:
        """The attacks of a sequence as threats of their own, in order; of anything else, itself."""
        if not isinstance(self.settings, SequenceSettings):
            return (self,)
        each = self.settings.members.items()
        return tuple(self.model_copy(update={"attack": name, "settings": settings}) for name, settings in each)

    def columns(self) -> dict[str, str | int]:
        own = {"kind": self.kind, "attack": self.attack, "eps": str(self.eps), "protocol": self.protocol}
        return {**super().columns(), **own}

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Valid range of the images in the attack's space, or None when the protocol does not clip."""
        return (0.0, 1.0) if self.rules.clip else None


class CorruptionThreat(_Threat):
    """One corruption at one severity of a suite."""

    kind: Literal["corruption"] = "corruption"
    suite: str
    corruption: str
    severity: int = Field(ge=1, le=5)
    generated: bool
    """True: computed from the clean images in memory. False: read from the suite's own files. Two data sets."""
    jpeg_quality: int | None = Field(default=None, ge=1, le=100)
    """Generated images go through JPEG at this quality, as ImageNet-C's files did (85)."""
    frost: str = ""
    """Fingerprint of the frost pictures of a generated frost: other pictures are another corruption."""

    @property
    def id(self) -> str:
        """Such as `imagenet-c:fog-3`."""
        return f"{self.suite}:{self.corruption}-{self.severity}"

    def columns(self) -> dict[str, str | int]:
        part = {"suite": self.suite, "corruption": self.corruption}
        return {**super().columns(), "kind": self.kind, **part, "severity": self.severity}


class ShiftThreat(_Threat):
    """Another data set with the same classes, or some of them."""

    kind: Literal["shift"] = "shift"
    suite: str

    @property
    def id(self) -> str:
        return self.suite

    def columns(self) -> dict[str, str | int]:
        return {**super().columns(), "kind": self.kind, "suite": self.suite}


Threat = Annotated[CleanThreat | AttackThreat | CorruptionThreat | ShiftThreat, Field(discriminator="kind")]


def pixel_equivalent(threat: AttackThreat, std: Sequence[float]) -> tuple[float, ...]:
    """The threat's eps for each channel as a fraction of the pixel range [0, 1].

    `std` is the model's normalisation. In normalised space a change of eps is eps x std in pixels, whatever the mean:
    "1/255" with ImageNet's constants is 0.224 to 0.229 of 1/255. In pixel space every channel gets eps itself.
    """
    eps = float(threat.eps)
    return tuple(eps * s if threat.rules.space == "normalized" else eps for s in std)


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
