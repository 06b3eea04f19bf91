"""The rules that a protocol's attacks share, and the protocol: one TOML file in attacks/."""

from typing import Any, Literal

from pydantic import model_validator

from robustbench_twicing.spec.attacks import AnySettings
from robustbench_twicing.spec.values import Frozen


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
    recipe: Literal["model", "train-size", "paper"] = "model"
    """Preprocessing of images on disk; embedded data sets are used as they are."""
    rules: Rules
    default_attacks: tuple[str, ...]
    attacks: dict[str, AnySettings]

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
                if reason := settings.needs_best:
                    raise ValueError(f"{name} {reason}")
        return self
