"""Back into the ball, and into the valid range."""

import torch

from robustbench_twicing.specs import Norm
from robustbench_twicing.tensors import Images


def project(
    images: Images, center: Images, eps: float, norm: Norm = "Linf", bounds: tuple[float, float] | None = (0.0, 1.0)
) -> Images:
    """The nearest point to `images` within `eps` of `center`, then clipped to `bounds`.

    Clipping moves a point towards `center`, which lies within `bounds`, so the result is in both sets. Projecting
    twice equals projecting once, up to rounding for L2.
    """
    if norm == "Linf":
        inside = torch.minimum(torch.maximum(images, center - eps), center + eps)
    else:
        delta = images - center
        length = delta.flatten(1).norm(dim=1).clamp_min(torch.finfo(delta.dtype).tiny)
        inside = center + delta * (eps / length).clamp_max(1.0)[:, None, None, None]
    return inside if bounds is None else inside.clamp(*bounds)


def random_start(uniforms: Images, eps: float) -> Images:
    """Uniform draws on [0, 1) as a perturbation, uniform in the L∞ ball of radius `eps`."""
    return (2.0 * uniforms - 1.0) * eps
