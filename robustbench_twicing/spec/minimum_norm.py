"""Settings of walks to the nearest mistake: eps only says which of the mistakes they come by count."""

from typing import Literal

from pydantic import Field

from robustbench_twicing.spec.attack_settings import AttackSettings


class FmnSettings(AttackSettings):
    """Fast minimum-norm: steps along the gradient within a ball whose radius follows the boundary (Pintor et al. 2021,
    arXiv 2102.12827, algorithm 1)."""

    algorithm: Literal["fmn"] = "fmn"
    steps: int = Field(ge=1)
    step_size: float = Field(gt=0)
    """Of the first step along the normalised gradient, in pixels of L2; it falls to a hundredth on half a cosine."""
    gamma: float = Field(default=0.05, gt=0, lt=1)
    """By what share the radius first shrinks or grows; it falls to 0.001 likewise."""

    @property
    def schedule(self) -> str:
        return f"{self.steps} steps, the closest"


class DdnSettings(AttackSettings):
    """Decoupled direction and norm: steps along the gradient, onto a sphere that shrinks behind the boundary and grows
    before it (Rony et al. 2019, arXiv 1811.09600, algorithm 1)."""

    algorithm: Literal["ddn"] = "ddn"
    norm: Literal["L2"] = "L2"
    steps: int = Field(ge=1)
    radius: float = Field(default=1.0, gt=0)
    """Of the first sphere."""
    gamma: float = Field(default=0.05, gt=0, lt=1)
    """By what share the radius shrinks or grows."""

    @property
    def schedule(self) -> str:
        return f"{self.steps} steps, the closest"


class DeepFoolSettings(AttackSettings):
    """Steps to the nearest of the linearised boundaries with other classes, until the model errs (Moosavi-Dezfooli et
    al. 2016, arXiv 1511.04599, algorithm 2)."""

    algorithm: Literal["deepfool"] = "deepfool"
    steps: int = Field(ge=1)
    targets: int = Field(ge=1)
    """Wrong classes to look at, those that the clean image's logits rank highest; at most all there are."""
    overshoot: float = Field(default=0.02, ge=0)
    """How far it goes beyond, as a share of the way."""

    @property
    def schedule(self) -> str:
        return f"{self.steps} steps × {self.targets} targets, the first mistake"

    @property
    def evaluations(self) -> int:
        return (self.steps + 1) * self.targets

    @property
    def gradients(self) -> int:
        return (self.steps + 1) * self.targets
