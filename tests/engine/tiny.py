"""Small models, images and threats for the engine's tests."""

from typing import Any

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from robustbench_twicing.engine.algorithms import ALGORITHMS
from robustbench_twicing.engine.contract import Perturbed, Queries
from robustbench_twicing.seeding import Draws
from robustbench_twicing.spec.attacks import (
    ApgdSettings,
    ApgdTargetedSettings,
    AttackSettings,
    AttSettings,
    FgsmSettings,
    MifgsmSettings,
    NoiseSettings,
    PatchFoolSettings,
    PgdSettings,
    PgdTargetedSettings,
    PnaPatchOutSettings,
    SpsaSettings,
    SquareSettings,
    TgrSettings,
)
from robustbench_twicing.spec.minimum_norm import (
    DdnSettings,
    DeepFoolSettings,
    FabTargetedSettings,
    FmnSettings,
    HopSkipJumpSettings,
)
from robustbench_twicing.spec.protocol import Rules
from robustbench_twicing.spec.threats import AttackThreat
from robustbench_twicing.spec.values import Eps, Length, Norm


def small_net(size: int = 8, classes: int = 5, seed: int = 0) -> nn.Module:
    """A smooth random network on (batch, 3, size, size) images."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            nn.GELU(),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(6 * (size // 2) ** 2, classes),
        )
        for parameter in net.parameters():
            parameter.data.mul_(3.0)  # enough slope for a small eps to matter
    return net.eval()


def small_vit(size: int = 8, classes: int = 5, seed: int = 0, depth: int = 2) -> VisionTransformer:
    """timm's vision transformer on (batch, 3, size, size) images in four patches, its weights drawn by numpy."""
    net = VisionTransformer(size, size // 2, num_classes=classes, embed_dim=8, depth=depth, num_heads=2).eval()
    random = np.random.default_rng(seed)
    for name, weights in sorted(net.named_parameters()):
        drawn = 0.4 * random.standard_normal(weights.shape) + ("norm" in name and name.endswith("weight"))
        weights.data.copy_(torch.from_numpy(drawn))
    return net


class Exact(nn.Module):
    """A network in float64, whose logits do not follow the batch size, and how many images it was asked for."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net.double().requires_grad_(False)
        self.asked = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.asked += len(images)
        logits: torch.Tensor = self.net(images.double()).float()
        return logits


def random_images(count: int, size: int = 8, low: float = 0.0, high: float = 1.0, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(count, 3, size, size, generator=generator)


def ids(count: int) -> tuple[str, ...]:
    return tuple(f"sample-{row}" for row in range(count))


def rules(**changes: Any) -> Rules:
    return Rules(**{"space": "pixel", "clip": True, "labels": "true", "iterate": "last", **changes})


def fgsm_settings(norm: Norm = "Linf") -> FgsmSettings:
    return FgsmSettings(algorithm="fgsm", norm=norm)


def pgd_settings(steps: int = 10, step_size: str = "0.25 eps", **changes: Any) -> PgdSettings:
    return PgdSettings(algorithm="pgd", steps=steps, step_size=Length.parse(step_size), **changes)


def pgd_t_settings(steps: int = 10, targets: int = 9, **changes: Any) -> PgdTargetedSettings:
    return PgdTargetedSettings(steps=steps, step_size=Length.parse("0.25 eps"), targets=targets, **changes)


def spsa_settings(steps: int = 3, samples: int = 8, step_size: str = "0.32 eps", **changes: Any) -> SpsaSettings:
    probe = Length.parse(changes.pop("probe_distance", "0.32 eps"))
    return SpsaSettings(
        algorithm="spsa",
        steps=steps,
        samples=samples,
        step_size=Length.parse(step_size),
        probe_distance=probe,
        **changes,
    )


def apgd_settings(steps: int = 10, **changes: Any) -> ApgdSettings:
    return ApgdSettings(algorithm="apgd", steps=steps, **changes)


def apgd_t_settings(steps: int = 10, targets: int = 9, **changes: Any) -> ApgdTargetedSettings:
    return ApgdTargetedSettings(algorithm="apgd-t", steps=steps, targets=targets, **changes)


def fab_t_settings(steps: int = 10, targets: int = 9, **changes: Any) -> FabTargetedSettings:
    return FabTargetedSettings(algorithm="fab-t", steps=steps, targets=targets, **changes)


def fmn_settings(steps: int = 10, step_size: float = 1.0, **changes: Any) -> FmnSettings:
    return FmnSettings(steps=steps, step_size=step_size, **changes)


def ddn_settings(steps: int = 10, **changes: Any) -> DdnSettings:
    return DdnSettings(norm="L2", steps=steps, **changes)


def deepfool_settings(steps: int = 10, targets: int = 9, **changes: Any) -> DeepFoolSettings:
    return DeepFoolSettings(steps=steps, targets=targets, **changes)


def hop_skip_jump_settings(steps: int = 10, **changes: Any) -> HopSkipJumpSettings:
    return HopSkipJumpSettings(steps=steps, **changes)


def square_settings(queries: int = 50, p_init: float = 0.8, **changes: Any) -> SquareSettings:
    return SquareSettings(algorithm="square", queries=queries, p_init=p_init, **changes)


def mifgsm_settings(steps: int = 10, step_size: str = "0.1 eps", decay: float = 1.0, **changes: Any) -> MifgsmSettings:
    return MifgsmSettings(algorithm="mifgsm", steps=steps, step_size=Length.parse(step_size), decay=decay, **changes)


def pna_patchout_settings(steps: int = 10, decay: float = 0.0, **changes: Any) -> PnaPatchOutSettings:
    changes = {"kept": 0.66, "distance_weight": 0.1, **changes}
    return PnaPatchOutSettings(steps=steps, step_size=Length.parse("0.1 eps"), decay=decay, **changes)


def tgr_settings(steps: int = 10, decay: float = 1.0) -> TgrSettings:
    return TgrSettings(steps=steps, step_size=Length.parse("0.1 eps"), decay=decay)


def att_settings(steps: int = 10, **changes: Any) -> AttSettings:
    return AttSettings(steps=steps, step_size=Length.parse("0.1 eps"), decay=1.0, **changes)


def patch_fool_settings(steps: int = 10, **changes: Any) -> PatchFoolSettings:
    return PatchFoolSettings(steps=steps, step_size=Length.parse("0.05 eps"), **changes)


def noise_settings(trials: int = 5, **changes: Any) -> NoiseSettings:
    return NoiseSettings(algorithm="noise", trials=trials, **changes)


def threat(settings: AttackSettings, eps: str = "8/255", **rule_changes: Any) -> AttackThreat:
    return AttackThreat(
        protocol="test",
        attack=settings.algorithm,
        eps=Eps.parse(eps, settings.norm),
        rules=rules(**rule_changes),
        settings=settings,
    )


def attack(
    model: Any,
    images: torch.Tensor,
    labels: torch.Tensor,
    threat: AttackThreat,
    *,
    batch_size: int = 32,
    seed: int = 0,
    sample_ids: tuple[str, ...] | None = None,
) -> Perturbed:
    """Run the threat's algorithm through the table that the runner uses."""
    draws = Draws(seed, sample_ids or ids(len(images)), threat.id)
    return ALGORITHMS[threat.settings.algorithm](Queries(model, batch_size), images, labels, threat, draws)


def answers(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(images).argmax(1)
