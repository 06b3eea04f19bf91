"""The nearest point of a hyperplane within the range of the pixels."""

import torch

from robustbench_twicing.spec.values import Norm
from robustbench_twicing.tensors import Images, PerSample

_MOST = 100
"""Steps of Newton's method. Each but the last lets at least one value reach its bound; on gradients of networks a
handful is enough, since only values near a bound can."""

_FAR = torch.finfo(torch.float32).max
"""All the way; finite, so that a value of no weight stays."""


def to_hyperplane(
    points: Images, normal: Images, rise: PerSample, norm: Norm, bounds: tuple[float, float] | None
) -> Images:
    """The shortest step d from `points` for which normal · d = `rise` and points + d stays within `bounds`.

    Where no step within `bounds` rises that far, the one that rises most (Croce & Hein 2020, arXiv 1907.02044, eq. 4).
    `points` and `normal` (batch, 3, H, W), `rise` of each sample.

    A value can move by m_i in its direction until it reaches a bound. With w = |normal|, the solution moves each by
    min(λ g_i, m_i), g_i = 1 for L∞ and w_i for L2 (the multipliers of Lagrange), where λ solves
    Σ w_i min(λ g_i, m_i) = |rise|. That sum is concave and piecewise linear in λ, so Newton's method from λ = 0 comes
    to the solution from below, in a finite number of steps, without sorting the m_i / g_i.
    """
    signs = normal.sign() * torch.where(rise < 0, -1.0, 1.0).to(normal.dtype)[:, None, None, None]
    signs = signs.where(~normal.isnan(), torch.nan)  # no sign is a number there, and none may look like one
    weights = normal.abs().flatten(1)
    if bounds is None:
        room = torch.full_like(weights, torch.inf)
    else:
        room = torch.where(signs > 0, bounds[1] - points, points - bounds[0]).clamp_min_(0.0).flatten(1)
    moved = _solved(weights, None if norm == "Linf" else weights, room, rise.abs())
    return moved.view_as(points) * signs


def _solved(weights: torch.Tensor, gains: torch.Tensor | None, room: torch.Tensor, rise: PerSample) -> torch.Tensor:
    """(batch, values): min(λ gains, room), gains of None being 1."""
    slopes = weights if gains is None else weights * gains
    factor = _per_sample(rise, slopes.sum(1, dtype=torch.float64))
    for _ in range(_MOST):
        reach = _times(factor, gains)
        short = rise - torch.minimum(reach, room).mul_(weights).sum(1, dtype=torch.float64)
        further = _per_sample(short, (slopes * (reach < room)).sum(1, dtype=torch.float64))
        # Rounding: what is short by less than float32 shows is nothing.
        further = further.where((further > factor * 2.0**-22) & (factor < _FAR), 0.0)
        if not (further > 0).any():
            break
        factor = (factor + further).clamp_max(_FAR)
    return torch.minimum(_times(factor, gains), room)


def _times(factor: PerSample, gains: torch.Tensor | None) -> torch.Tensor:
    return factor[:, None] if gains is None else gains * factor[:, None]


def _per_sample(rise: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    """How much further to go; where nothing can move any more, all the way."""
    return (rise / slope).where(slope > 0, _FAR).clamp_max(_FAR).to(torch.float32)
