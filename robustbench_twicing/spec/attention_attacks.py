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


class AttSettings(MomentumSettings):
    """The steps of MI-FGSM, with gradients of extreme tokens made smaller by how they vary from block to block, and
    patches left out more often the less they matter (Ming et al. 2024, NeurIPS)."""

    algorithm: Literal["att"] = "att"
    norm: Literal["Linf"] = "Linf"
    attention: float = Field(default=0.45, ge=0, le=1)
    """What is left of the gradient of attention's scores, in the blocks where any is."""
    qkv: float = Field(default=0.7, ge=0, le=1)
    """What is left of the gradient of queries, keys and values."""
    mlp: float = Field(default=0.65, ge=0, le=1)
    """What is left of the gradient of what the MLP gives."""
    extreme: float = Field(default=0.5, ge=0, le=1)
    """What is left beyond that of extreme tokens (the paper's γ)."""
    adaptive: float = Field(default=0.01, ge=0)
    """Times the change of the gradient's spread since the block behind, added to `extreme` (the paper's λ)."""
    attending: float = Field(default=0.8333, ge=0, le=1)
    """Share of the blocks, from the first, through whose attention a gradient goes."""
    kept_least: float = Field(default=0.4, ge=0, le=1)
    """Chance of the least important patch to be seen in the last step."""
    kept_more: float = Field(default=0.4, ge=0, le=1)
    """How much higher that of the most important one is."""

    looks_inside = True


class PatchFoolSettings(AttackSettings):
    """Adam on the pixels of the patches that are most attended to, and on their share of attention (Fu et al. 2022,
    arXiv 2203.08392). No other pixel changes; within the patches eps bounds the change, which at eps 1 is any."""

    algorithm: Literal["patch-fool"] = "patch-fool"
    norm: Literal["Linf"] = "Linf"
    patches: int = Field(default=1, ge=1)
    """How many are changed."""
    steps: int = Field(ge=1)
    step_size: Length
    """Adam's learning rate at first; every ten steps it is multiplied by `step_decay`."""
    step_decay: float = Field(default=0.95, gt=0, le=1)
    attention_weight: float = Field(default=0.002, ge=0)
    """Of the gradient of each block's attention to the first patch (the paper's α)."""
    chosen_in: int = Field(default=4, ge=0)
    """Number, from 0, of the block in which the most attended patches are looked for; of fewer blocks the last."""

    looks_inside = True

    @property
    def schedule(self) -> str:
        where = "1 patch" if self.patches == 1 else f"{self.patches} patches"
        return f"{self.steps} steps of {self.step_size} in {where}, other pixels untouched"

    @property
    def evaluations(self) -> int:
        return 1 + 6 * self.steps  # of a network of twelve blocks, in five of which attention is pulled

    @property
    def gradients(self) -> int:
        return 6 * self.steps
