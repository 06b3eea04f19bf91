"""Whatever an engine returned, measured."""

from typing import NamedTuple

import torch

from robustbench_twicing.engine.contract import Perturbed
from robustbench_twicing.spec.threats import AttackThreat
from robustbench_twicing.tensors import Images, PerSample


class Verified(NamedTuple):
    """Perturbed images that are safe to judge, and what was wrong with them."""

    images: Images
    """As returned where nothing was wrong, the input elsewhere."""
    reasons: tuple[str, ...]
    """Why a sample must not count; "" if it is fine."""
    linf: PerSample
    """Largest change of a value (float64); NaN where it cannot be measured."""
    l2: PerSample
    """Euclidean norm of the change (float64); NaN where it cannot be measured."""


def distances(perturbed: Images, images: Images) -> tuple[PerSample, PerSample]:
    """L∞ and L2 norm of each sample's change, measured in float64 so that the measurement adds no rounding."""
    delta = (perturbed.double() - images.double()).flatten(1)
    return delta.abs().amax(1), delta.norm(dim=1)


def rounding(images: Images, eps: float) -> PerSample:
    """How far a value of a perturbed image may lie from where exact arithmetic had put it, sample by sample.

    A float32 number of size v is at most v x 2^-24 away from what it stands for, and engines compute x + delta in a few
    such steps; we allow four. v is the sample's largest value, at least 1, plus eps.
    """
    return 4 * 2.0**-24 * (images.double().abs().flatten(1).amax(1).clamp_min(1.0) + eps)


def verify(perturbed: Perturbed, images: Images, threat: AttackThreat) -> Verified:
    """Check shape, type, finiteness, range (where the protocol clips) and measured norm of every sample.

    `images` are what the engine was given, in the threat's space. Nothing is repaired: a sample that breaks a rule gets
    a reason, and the runner does not count it.
    """
    returned, count = perturbed.images, len(images)
    if returned.shape != images.shape or returned.dtype != images.dtype:
        got, wanted = (f"{tuple(t.shape)} {t.dtype}".replace("torch.", "") for t in (returned, images))
        unknown = torch.full((count,), torch.nan, dtype=torch.float64, device=images.device)
        return Verified(images, (f"the engine returned {got} instead of {wanted}",) * count, unknown, unknown)
    returned = returned.detach().to(images.device)
    finite = returned.isfinite().flatten(1).all(1)
    linf, l2 = distances(returned, images)
    linf, l2 = linf.where(finite, torch.nan), l2.where(finite, torch.nan)
    norm, eps = threat.settings.norm, float(threat.eps)
    slack = rounding(images, eps)
    measured, values = linf if norm == "Linf" else l2, images[0].numel()
    if norm == "L1":
        measured = (returned.double() - images.double()).abs().sum((1, 2, 3))
    # A norm over all values collects the rounding of all.
    near = measured <= eps + slack * {"Linf": 1.0, "L2": values**0.5, "L1": values}[norm]
    low, high = threat.bounds or (-torch.inf, torch.inf)
    pixels = returned.flatten(1).double()
    valid = (pixels.amin(1) >= low - slack) & (pixels.amax(1) <= high + slack)
    reasons = []
    for is_finite, is_near, is_valid, distance in zip(
        finite.tolist(), near.tolist(), valid.tolist(), measured.tolist(), strict=True
    ):
        if not is_finite:
            reasons.append("the perturbed image is not finite")
        elif not is_near:
            reasons.append(f"the perturbation has {norm} norm {distance:.6g}, more than eps {eps:.6g}")
        elif not is_valid:
            reasons.append(f"the perturbed image leaves the range [{low:g}, {high:g}]")
        else:
            reasons.append("")
    fine = finite & near & valid
    return Verified(torch.where(fine[:, None, None, None], returned, images), tuple(reasons), linf, l2)
