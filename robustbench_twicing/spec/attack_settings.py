"""What the settings of every attack algorithm have in common."""

from math import prod
from typing import ClassVar

from pydantic import Field, model_validator

from robustbench_twicing.spec.values import Frozen, Norm


class AttackSettings(Frozen):
    """What the settings of all algorithms have, and can be asked. A class of its own for each algorithm: its fields are
    the keys of a protocol file."""

    algorithm: str
    norm: Norm = "Linf"
    suggested_limit: int | None = Field(default=None, ge=1, exclude=True)
    """Samples to attack when the user sets no limit; not part of the hash, since it changes n, not the attack."""

    norms: ClassVar[tuple[Norm, ...]] = ("Linf", "L2")
    """That it can bound a change by."""
    judged_apart: ClassVar[tuple[str, ...]] = ()
    """Settings that repeat the whole attack: each repetition ends in an image of its own, of which `iterate = "last"`
    judges only the last."""
    gradient_free: ClassVar[bool] = False
    """It only asks for logits."""
    control: ClassVar[bool] = False
    """What attacks must do better than: beside them it asks nothing of the model, so no comparison counts it."""
    looks_inside: ClassVar[bool] = False
    """It changes what attention does to gradients, so it needs a network whose attention it knows."""
    together: ClassVar[bool] = False
    """A sample's draws depend on the samples beside it: nobody can do it again alone."""
    engine: ClassVar[str] = ""
    """`MODULE:NAME` of the function that runs it, for an algorithm from outside (docs/plugins.md); ours stand in
    `engine.algorithms`."""

    @model_validator(mode="after")
    def _norm_is_known(self) -> "AttackSettings":
        if self.norm not in self.norms:
            raise ValueError(f"norm = {self.norm!r}, but {self.algorithm} knows {' and '.join(self.norms)}")
        return self

    @property
    def schedule(self) -> str:
        """What is done to an image, in a few words, for the line that states the threat model."""
        return ", ".join(f"{name} {value}" for name, value in self if name not in AttackSettings.model_fields)

    @property
    def needs_best(self) -> str:
        """Why these settings make no sense under `iterate = "last"`; "" if they do."""
        for name in self.judged_apart:
            if (count := getattr(self, name)) > 1:
                return f"has {name} = {count}, but iterate = 'last' judges only the last one"
        return ""

    @property
    def steps_taken(self) -> int:
        """Updates of the image, for each repetition."""
        return int(getattr(self, "steps", 1))

    @property
    def evaluations(self) -> int:
        """Evaluations of the model that one sample costs at most, the final judgement included. For estimates only."""
        return (self.steps_taken + 1) * self._repetitions

    @property
    def side_by_side(self) -> int:
        """How many of a sample's evaluations do not wait for each other."""
        return 1

    @property
    def gradients(self) -> int | None:
        """Input gradients that one sample costs at most; None if nobody knows. For estimates, and for the check of a
        model before it is attacked."""
        return 0 if self.gradient_free else self.steps_taken * self._repetitions

    @property
    def _repetitions(self) -> int:
        return prod(getattr(self, name) for name in self.judged_apart)


def restarts_said(count: int) -> str:
    """As a schedule says them; nothing of one."""
    return f" × {count} restarts" if count > 1 else ""
