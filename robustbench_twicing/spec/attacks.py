"""The settings of every attack algorithm, and the table `SETTINGS` that lists them."""

from math import prod
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from robustbench_twicing.errors import unknown_name
from robustbench_twicing.spec.attack_settings import AttackSettings as AttackSettings  # docs/plugins.md: from here
from robustbench_twicing.spec.attack_settings import restarts_said
from robustbench_twicing.spec.attention_attacks import (
    AttSettings,
    MomentumSettings,
    PatchFoolSettings,
    PnaPatchOutSettings,
    TgrSettings,
)
from robustbench_twicing.spec.minimum_norm import (
    DdnSettings,
    DeepFoolSettings,
    FabTargetedSettings,
    FmnSettings,
    HopSkipJumpSettings,
)
from robustbench_twicing.spec.values import AS_WRITTEN, NORMS, Length, content_hash


class FgsmSettings(AttackSettings):
    """One gradient step of size eps: signed for Linf (Goodfellow et al. 2015, arXiv 1412.6572, section 4), along the
    normalised gradient for L2."""

    algorithm: Literal["fgsm"] = "fgsm"

    @property
    def schedule(self) -> str:
        return "1 step"


class PgdWalkSettings(AttackSettings):
    """Iterated gradient ascent, projected to the ball: signed for Linf, normalised for L2 (Madry et al. 2018, arXiv
    1706.06083)."""

    steps: int = Field(ge=1)
    step_size: Length
    random_start: bool = True
    restarts: int = Field(default=1, ge=1)


class PgdSettings(PgdWalkSettings):
    """Away from the label."""

    algorithm: Literal["pgd"] = "pgd"

    judged_apart = ("restarts",)

    @property
    def schedule(self) -> str:
        return f"{self.steps} steps of {self.step_size}{restarts_said(self.restarts)}"


class PgdTargetedSettings(PgdWalkSettings):
    """Towards one wrong class after the other (MultiTargeted, Gowal et al. 2019, arXiv 1910.09338)."""

    algorithm: Literal["pgd-t"] = "pgd-t"
    targets: int = Field(ge=1)
    """Wrong classes to aim at, those that the clean logits rank highest first; at most all there are."""

    judged_apart = ("restarts", "targets")

    @property
    def schedule(self) -> str:
        return f"{self.steps} steps of {self.step_size} × {self.targets} targets{restarts_said(self.restarts)}"

    @property
    def evaluations(self) -> int:
        return super().evaluations + 1


class SpsaSettings(AttackSettings):
    """Gradient-free ascent from paired random probes (Uesato et al. 2018, arXiv 1802.05666, algorithm 1)."""

    algorithm: Literal["spsa"] = "spsa"
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

    gradient_free = True

    @property
    def schedule(self) -> str:
        return f"{self.steps} steps × 2·{self.samples} probes"

    @property
    def evaluations(self) -> int:
        return self.steps * (2 * self.samples + 1)

    @property
    def side_by_side(self) -> int:
        return 2 * self.samples


class _AutoPgdSettings(AttackSettings):
    norms = NORMS

    @property
    def _more_starts(self) -> int:
        """Evaluations beyond those of the steps: in L1, a walk begins three times."""
        return 2 * self._repetitions if self.norm == "L1" else 0


class ApgdSettings(_AutoPgdSettings):
    """Auto-PGD: momentum and a step size that halves itself (Croce & Hein 2020, arXiv 2003.01690, algorithm 1)."""

    algorithm: Literal["apgd"] = "apgd"
    loss: Literal["ce", "dlr"] = "ce"
    steps: int = Field(ge=1)
    restarts: int = Field(default=1, ge=1)

    judged_apart = ("restarts",)

    @property
    def schedule(self) -> str:
        return f"{self.steps} steps{restarts_said(self.restarts)}"

    @property
    def evaluations(self) -> int:
        return super().evaluations + 1 + self._more_starts


class ApgdTargetedSettings(_AutoPgdSettings):
    """Auto-PGD with the targeted DLR loss, one target class after the other (Croce & Hein 2020, arXiv 2003.01690,
    section 4)."""

    algorithm: Literal["apgd-t"] = "apgd-t"
    steps: int = Field(ge=1)
    targets: int = Field(ge=1)
    """Wrong classes to aim at, those that the clean logits rank highest first; at most all there are."""
    restarts: int = Field(default=1, ge=1)

    judged_apart = ("restarts", "targets")

    @property
    def schedule(self) -> str:
        return f"{self.steps} steps × {self.targets} targets{restarts_said(self.restarts)}"

    @property
    def evaluations(self) -> int:
        return super().evaluations + 2 + self._more_starts


class SquareSettings(AttackSettings):
    """Random search with square windows, without gradients (Andriushchenko et al. 2020, arXiv 1912.00049)."""

    algorithm: Literal["square"] = "square"
    queries: int = Field(ge=1)
    """Squares that are tried; the image that they are put on costs one evaluation more."""
    p_init: float = Field(gt=0, le=1)
    """Fraction of the pixels that the first square covers."""

    gradient_free = True

    @property
    def schedule(self) -> str:
        return f"{self.queries} queries"

    @property
    def steps_taken(self) -> int:
        return self.queries

    @property
    def evaluations(self) -> int:
        return self.queries + 2


class MifgsmSettings(MomentumSettings):
    """Iterated steps along an accumulated gradient (Dong et al. 2018, arXiv 1710.06081, algorithm 1)."""

    algorithm: Literal["mifgsm"] = "mifgsm"


class NoiseSettings(AttackSettings):
    """Uniform random points of the ball: what an attack must do better than."""

    algorithm: Literal["noise"] = "noise"
    trials: int = Field(ge=1)

    judged_apart = ("trials",)
    gradient_free = True
    control = True

    @property
    def schedule(self) -> str:
        return f"{self.trials} random points"

    @property
    def evaluations(self) -> int:
        return self.trials


# What torchattacks calls the number of steps, and what multiplies the evaluations of a step.
_STEPS = ("steps", "nb_iter", "num_iter_set", "n_queries")
_REPEATS = ("n_restarts", "eot_iter", "noise_batch_size", "nb_sample", "m", "N")


class TorchattacksSettings(AttackSettings):
    """An attack of the torchattacks package, with every argument written out.

    An argument tied to eps is a length such as "0.25 eps"; the run fills in `norm`, `seed` and `verbose`, and lowers
    `n_classes` to what the model has.
    """

    algorithm: Literal["torchattacks"] = "torchattacks"
    together = True
    attack: str
    """Class name in torchattacks, such as `APGD`."""
    arguments: dict[str, bool | int | float | str | None] = Field(default_factory=dict)

    def __hash__(self) -> int:  # pydantic's own cannot hash a dict
        return hash(content_hash(self.model_dump(mode="json")))

    @property
    def schedule(self) -> str:
        return f"by torchattacks.{self.attack}"

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


class PythonSettings(AttackSettings):
    """A function from outside that takes no settings (docs/plugins.md)."""

    algorithm: Literal["python"] = "python"
    function: str
    """`MODULE:NAME`."""
    code: str
    """The package and version that the function comes from, or the hash of its file: other code is another attack."""

    norms = NORMS

    @property
    def schedule(self) -> str:
        return f"by {self.function} ({self.code})"

    @property
    def gradients(self) -> None:
        return None


class UnknownSettings(AttackSettings):
    """Settings of an algorithm that this installation does not know, or that is another one by now, as a run wrote them
    down: to read (`values.AS_WRITTEN`), not to run."""

    model_config = ConfigDict(extra="allow")

    norms = NORMS

    @property
    def gradients(self) -> None:
        return None


def _by_algorithm(content: Any, info: Any) -> Any:  # pydantic's ValidationInfo, which cannot be checked at run time
    """Settings of the class that `algorithm` names. Raises `ValidationError`, for an unknown name with all known."""
    if not isinstance(content, dict):
        return content
    name = content.get("algorithm")
    try:
        return _class_of(name).model_validate(content, context=info.context)
    except ValidationError:
        if info.context != AS_WRITTEN or not isinstance(name, str):
            raise
        return UnknownSettings.model_validate(content)


def _class_of(name: Any) -> type[AttackSettings]:
    if isinstance(name, str) and name in SETTINGS:
        return SETTINGS[name]
    unknown = unknown_name("algorithm", str(name), SETTINGS)
    kind = "missing" if name is None else PydanticCustomError("unknown_name", f"{unknown.message} {unknown.hint}")
    raise ValidationError.from_exception_data("attack", [InitErrorDetails(type=kind, loc=("algorithm",), input=name)])


AnySettings = Annotated[SerializeAsAny[AttackSettings], BeforeValidator(_by_algorithm)]
"""Settings of whatever algorithm the key `algorithm` names: the type of a field that holds some."""


class SequenceSettings(AttackSettings):
    """Several attacks one after the other, each on the samples that still stand: a sample's worst case over all of
    them, as AutoAttack is made (Croce & Hein 2020, arXiv 2003.01690, section 6).

    A member draws as it does on its own, so its verdict on a sample is that of its own row.
    """

    algorithm: Literal["sequence"] = "sequence"
    members: dict[str, AnySettings] = Field(min_length=1)
    """In this order. In a protocol file: names of attacks of the same file."""

    norms = NORMS

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
    def schedule(self) -> str:
        return f"= {' then '.join(self.members)}"

    @property
    def needs_best(self) -> str:
        return "is a sequence, whose members get survivors: it needs iterate = 'best'"

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


SETTINGS: dict[str, type[AttackSettings]] = {
    "apgd": ApgdSettings,
    "apgd-t": ApgdTargetedSettings,
    "att": AttSettings,
    "ddn": DdnSettings,
    "deepfool": DeepFoolSettings,
    "fab-t": FabTargetedSettings,
    "fgsm": FgsmSettings,
    "fmn": FmnSettings,
    "hop-skip-jump": HopSkipJumpSettings,
    "mifgsm": MifgsmSettings,
    "noise": NoiseSettings,
    "patch-fool": PatchFoolSettings,
    "pgd": PgdSettings,
    "pgd-t": PgdTargetedSettings,
    "pna-patchout": PnaPatchOutSettings,
    "python": PythonSettings,
    "sequence": SequenceSettings,
    "spsa": SpsaSettings,
    "square": SquareSettings,
    "tgr": TgrSettings,
    "torchattacks": TorchattacksSettings,
}
"""Every algorithm that a protocol file can name -> its settings. A class that is added at run time counts as well."""
