"""Settings of attacks that change what attention does to a gradient, in networks built on timm's Attention."""

from typing import Literal

from pydantic import Field

from robustbench_twicing.spec.attack_settings import AttackSettings
from robustbench_twicing.spec.values import Length


class MomentumSettings(AttackSettings):
    """What iterated steps along an accumulated gradient are described by."""

    steps: int = Field(ge=1)
    step_size: Length
    decay: float = Field(ge=0)
    """What is kept of the accumulated gradient in each step; 0 keeps nothing."""

    @property
    def schedule(self) -> str:
        return f"{self.steps} steps of {self.step_size}"


class PnaPatchOutSettings(MomentumSettings):
    """No gradient through the attention matrix, and some of the patches in each step (Wei et al. 2022, arXiv
    2109.04176)."""

    algorithm: Literal["pna-patchout"] = "pna-patchout"
    norm: Literal["Linf"] = "Linf"
    kept: float = Field(gt=0, le=1)
    """Share of the patches whose perturbation the model sees in a step."""
    distance_weight: float = Field(ge=0)
    """Of the perturbation's L2 norm, which is added to the loss (the paper's λ)."""

    looks_inside = True

    @property
    def schedule(self) -> str:
        return f"{super().schedule}, {100 * self.kept:.3g} % of the patches in each"


class TgrSettings(MomentumSettings):
    """The steps of MI-FGSM, with gradients in every block made smaller, and those of extreme tokens left out (Zhang et
    al. 2023, arXiv 2303.15754)."""

    algorithm: Literal["tgr"] = "tgr"
    norm: Literal["Linf"] = "Linf"
    attention: float = Field(default=0.25, ge=0, le=1)
    """What is left of the gradient of attention's scores."""
    qkv: float = Field(default=0.75, ge=0, le=1)
    """What is left of the gradient of queries, keys and values."""
    mlp: float = Field(default=0.5, ge=0, le=1)
    """What is left of the gradient of what the MLP gives."""

    looks_inside = True
