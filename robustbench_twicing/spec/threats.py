"""What is done to the images: nothing, an attack at an eps, a corruption at a severity, or another data set."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from robustbench_twicing.spec.attacks import AnySettings, SequenceSettings
from robustbench_twicing.spec.models import ModelSpec
from robustbench_twicing.spec.protocol import Rules
from robustbench_twicing.spec.text import ELIGIBLE, WindowRule
from robustbench_twicing.spec.values import Eps, Frozen, content_hash


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
    settings: AnySettings
    precision: Precision = "float32"
    """The attack's own computations; whether it succeeded is decided in float32."""
    eight_bit: bool = False
    """Judge every attacked image once more with its pixels rounded to 8 bits, as a picture file would hold it."""
    source: ModelSpec | None = None
    """Another model that the images are made on, to be judged by this one (a transfer attack)."""
    eot: int = Field(default=1, ge=1)
    """Draws of a random model over which the attack averages whatever it asks (expectation over transformation, Athalye
    et al. 2018, arXiv 1802.00420). The verdict is that of one more draw."""

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
        usual = {name: AttackThreat.model_fields[name].default for name in ("precision", "eight_bit", "source", "eot")}
        chosen = self.model_dump(mode="json", include=set(usual))
        return content_hash(content | {name: value for name, value in chosen.items() if value != usual[name]})

    @property
    def evaluations(self) -> int:
        """Of the model, that one sample costs at most. For estimates."""
        return self.settings.evaluations * self.eot

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


class OtherThreat(_Threat):
    """What another tool did to the images, by whose predictions we have it. Nobody here can do it, or check it."""

    kind: Literal["other"] = "other"
    name: str
    says: str = ""
    """What it does, in the words of whoever handed over the predictions."""

    @property
    def id(self) -> str:
        return self.name

    def columns(self) -> dict[str, str | int]:
        return {**super().columns(), "kind": self.kind}


class CleanText(_Threat):
    """The text as it is, read through windows."""

    kind: Literal["clean-text"] = "clean-text"
    window: WindowRule

    @property
    def id(self) -> str:
        return "clean"

    def columns(self) -> dict[str, str | int]:
        return {**super().columns(), "kind": "clean", "protocol": self.window.id}


class CorruptedText(_Threat):
    """The text with some of its words changed."""

    kind: Literal["corrupted-text"] = "corrupted-text"
    window: WindowRule
    suite: str
    corruption: str
    severity: int = Field(ge=1, le=5)
    rate: float = Field(gt=0, le=1)
    """Share of the eligible words that is hit."""
    eligible: str = ELIGIBLE

    @property
    def id(self) -> str:
        """Such as `word-swap:fixed-word-3`."""
        return f"{self.suite}:{self.corruption}-{self.severity}"

    def columns(self) -> dict[str, str | int]:
        part = {"suite": self.suite, "corruption": self.corruption}
        kind = {"kind": "corruption", "protocol": self.window.id}
        return {**super().columns(), **kind, **part, "severity": self.severity}


Threat = Annotated[
    CleanThreat | AttackThreat | CorruptionThreat | ShiftThreat | OtherThreat | CleanText | CorruptedText,
    Field(discriminator="kind"),
]


def pixel_equivalent(threat: AttackThreat, std: Sequence[float]) -> tuple[float, ...]:
    """The threat's eps for each channel as a fraction of the pixel range [0, 1].

    `std` is the model's normalisation. In normalised space a change of eps is eps x std in pixels, whatever the mean:
    "1/255" with ImageNet's constants is 0.224 to 0.229 of 1/255. In pixel space every channel gets eps itself.
    """
    eps = float(threat.eps)
    return tuple(eps * s if threat.rules.space == "normalized" else eps for s in std)
