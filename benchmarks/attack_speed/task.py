"""What every candidate is given, and what a candidate is."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from robustbench_twicing.catalog.protocols import attack_threat, protocol
from robustbench_twicing.spec.attacks import PgdSettings, SpsaSettings
from robustbench_twicing.spec.threats import AttackThreat
from robustbench_twicing.spec.values import Eps

Images = torch.Tensor


@dataclass(frozen=True)
class Task:
    """What every candidate is given."""

    model: nn.Module
    """The network that the candidate works on."""
    own: nn.Module
    """The same weights as the tool evaluates them, which candidates of ours get as `model`."""
    images: Images
    labels: torch.Tensor
    threat: AttackThreat
    name: str
    """Of the model, for the table."""
    classes: int

    @property
    def device(self) -> torch.device:
        return self.images.device

    @property
    def eps(self) -> float:
        return float(self.threat.eps)

    @property
    def pgd(self) -> PgdSettings:
        assert isinstance(self.threat.settings, PgdSettings)
        return self.threat.settings

    @property
    def step(self) -> float:
        return self.pgd.step_size.at(self.threat.eps)

    @property
    def spsa(self) -> SpsaSettings:
        assert isinstance(self.threat.settings, SpsaSettings)
        return self.threat.settings


Candidate = Callable[[Task, int], Images]
"""(task, batch size) -> perturbed images."""


def standard(attack: str, eps: str, **changes: int) -> AttackThreat:
    """An attack of the `standard` protocol."""
    threat = attack_threat(protocol("standard"), attack, Eps.parse(eps))
    return threat.model_copy(update={"settings": threat.settings.model_copy(update=changes)})
