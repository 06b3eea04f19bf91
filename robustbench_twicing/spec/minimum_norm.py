"""Settings of walks to the nearest mistake: eps only says which of the mistakes they come by count."""

from math import sqrt
from typing import Literal

from pydantic import Field

from robustbench_twicing.spec.attack_settings import AttackSettings, restarts_said


class FabTargetedSettings(AttackSettings):
    """The way to the boundary with each of several wrong classes (Croce & Hein 2020, arXiv 1907.02044, algorithm 1)."""

    algorithm: Literal["fab-t"] = "fab-t"
    steps: int = Field(ge=1)
    targets: int = Field(ge=1)
    """Wrong classes to aim at, those that the clean logits rank highest; at most all there are."""
    restarts: int = Field(default=1, ge=1)
    alpha_max: float = Field(default=0.1, ge=0, le=1)
    """The most that an iterate is drawn towards the image."""
    eta: float = Field(default=1.05, ge=1)
    """How far a step goes, of the way to the linearised boundary."""
    beta: float = Field(default=0.9, gt=0, lt=1)
    """What is left of the distance to the image after an iterate that fools the model."""
    keeps: Literal["first", "closest"] = "first"
    """`closest` goes on after the first iterate within eps that fools the model, for a nearer one."""

    @property
    def schedule(self) -> str:
        closest = ", the closest" if self.keeps == "closest" else ""
        return f"{self.steps} steps × {self.targets} targets{restarts_said(self.restarts)}{closest}"

    @property
    def evaluations(self) -> int:
        return 2 * self.steps * self.targets * self.restarts + 2

    @property
    def gradients(self) -> int:
        return self.steps * self.targets * self.restarts


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


class HopSkipJumpSettings(AttackSettings):
    """Along the decision boundary by answers alone, without logits or gradients (HopSkipJump, Chen et al. 2020, arXiv
    1904.02144)."""

    algorithm: Literal["hop-skip-jump"] = "hop-skip-jump"
    steps: int = Field(ge=1)
    directions: int = Field(default=100, ge=1)
    """Asked in the first step; in step t that many times the square root of t."""
    most_directions: int = Field(default=10_000, ge=1)
    """In any step."""
    trials: int = Field(default=100, ge=1)
    """Random images that are tried for one to begin at."""
    keeps: Literal["first", "closest"] = "first"
    """`closest` goes on after the first mistake within eps, for a nearer one."""

    gradient_free = True

    def directions_of(self, step: int) -> int:
        """Asked in a step, from 1."""
        return min(int(self.directions * sqrt(step)), self.most_directions)

    @property
    def most_batches(self) -> int:
        """Of `directions` directions each, that a step has at most."""
        return -(-self.directions_of(self.steps) // self.directions)

    @property
    def schedule(self) -> str:
        closest = ", the closest" if self.keeps == "closest" else ""
        return f"{self.steps} steps of {self.directions} × √step directions, answers alone{closest}"

    @property
    def evaluations(self) -> int:
        asked = sum(self.directions_of(step) for step in range(1, self.steps + 1))
        return asked + (self.steps + 1) * 25 + self.trials

    @property
    def side_by_side(self) -> int:
        return self.directions
