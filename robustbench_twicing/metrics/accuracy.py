"""Accuracy, and what a curve of accuracy over eps comes to."""

import numpy as np
from jaxtyping import Bool, Float
from scipy.integrate import trapezoid


def accuracy(hits: Bool[np.ndarray, " samples"]) -> float:
    """Fraction of samples that count as right: top-1 from the column `correct`, top-5 from `top5_correct`.

    NaN without samples.
    """
    return float(hits.mean()) if hits.size else float("nan")


def curve_area(
    eps: Float[np.ndarray, " points"], accuracies: Float[np.ndarray, "*curves points"]
) -> Float[np.ndarray, "*curves"]:
    """Mean accuracy over the range of `eps`: the area under the curve by trapezoids, divided by the range. In [0, 1].

    `eps` strictly increasing, at least two points (clean is eps 0). Any number of curves along the leading axes. The
    value depends on which eps were measured: compare areas over the same `eps` only. Raises `ValueError`.
    """
    _check_curve(eps)
    return np.asarray(trapezoid(accuracies, eps, axis=-1) / (eps[-1] - eps[0]))


def half_accuracy_eps(eps: Float[np.ndarray, " points"], accuracies: Float[np.ndarray, " points"]) -> float | None:
    """The eps at which accuracy first falls to half of its value at eps 0, by linear interpolation.

    `eps` strictly increasing from 0. None if no measured point is that low, or if nothing was right at eps 0: there is
    no extrapolation. Raises `ValueError`.
    """
    _check_curve(eps)
    if eps[0] != 0:
        raise ValueError("the curve has to start at eps 0, the clean accuracy")
    half = accuracies[0] / 2
    below = np.flatnonzero(accuracies <= half)
    if accuracies[0] == 0 or not below.size:
        return None
    after = below[0]
    before = after - 1
    share = (accuracies[before] - half) / (accuracies[before] - accuracies[after])
    return float(eps[before] + share * (eps[after] - eps[before]))


def _check_curve(eps: np.ndarray) -> None:
    if len(eps) < 2 or not (np.diff(eps) > 0).all():
        raise ValueError(f"a curve needs at least two strictly increasing eps, not {eps.tolist()}")
