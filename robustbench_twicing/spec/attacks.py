"""Attack settings, the rules that a protocol's attacks share, and the protocol: one TOML file in attacks/."""

from math import prod
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from robustbench_twicing.spec.values import Frozen, Length, Norm, content_hash


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
    arguments: dict[str, bool | int | float | str | None] = Field(default_factory=dict)

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
