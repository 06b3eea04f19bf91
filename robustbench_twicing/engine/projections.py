"""The geometry of the ball: back into it, a step in it, a start in it."""

import torch

from robustbench_twicing.seeding import Draws
from robustbench_twicing.spec.values import Norm
from robustbench_twicing.tensors import Images, PerSample

# Added to a norm before dividing by it: a zero vector stays zero.
_TINY = torch.finfo(torch.float32).tiny

_HALVINGS = 48
"""More would not move a float32 image."""


def lengths(vectors: Images) -> PerSample:
    """Euclidean norm of each sample, summed in float64: torch's order of summation follows the batch size."""
    result: torch.Tensor = torch.linalg.vector_norm(vectors, dim=(1, 2, 3), dtype=torch.float64).to(vectors.dtype)
    return result


def project(images: Images, center: Images, eps: float, norm: Norm, bounds: tuple[float, float] | None) -> Images:
    """The nearest point to `images` within `eps` of `center`, then clipped to `bounds` (None: not clipped).

    Clipping moves a point towards `center`, which lies within `bounds`, so the result is in both sets. Projecting
    twice equals projecting once, up to rounding for L2.
    """
    if norm == "Linf":
        inside = torch.minimum(torch.maximum(images, center - eps), center + eps)
    else:
        delta = images - center
        shrink = (eps / (lengths(delta) + _TINY)).clamp_max(1.0)
        inside = center + delta * shrink[:, None, None, None]
    return inside if bounds is None else inside.clamp(*bounds)


def project_l1(images: Images, center: Images, eps: float, bounds: tuple[float, float] | None) -> Images:
    """The nearest point to `images` whose change from `center` is at most `eps` in L1, and which lies within `bounds`.

    Every value gives up the same λ ≥ 0 of its change and goes no further than its bound (Croce & Hein 2021, arXiv
    2103.01208, proposition 2.1). The least λ at which the rest fits into the ball is found by halving, in float64.
    """
    change = (images - center).double()
    size = change.abs()
    room = torch.full_like(change, torch.inf)
    if bounds is not None:
        room = torch.where(change > 0, bounds[1] - center.double(), center.double() - bounds[0]).clamp_min(0)

    def kept(lost: torch.Tensor) -> torch.Tensor:
        return (size - lost).clamp_min(0).minimum(room)

    low = torch.zeros_like(size[:, :1, :1, :1])
    high = size.amax((1, 2, 3), keepdim=True)
    fits = kept(low).sum((1, 2, 3), keepdim=True) <= eps
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        inside = kept(middle).sum((1, 2, 3), keepdim=True) <= eps
        low, high = torch.where(inside, low, middle), torch.where(inside, middle, high)
    moved = center + (change.sign() * kept(torch.where(fits, 0.0, high))).to(center.dtype)
    moved = moved if bounds is None else moved.clamp(*bounds)
    return torch.where(images.isnan(), images, moved)


def distance(delta: Images, norm: Norm) -> PerSample:
    """How long each sample's change is."""
    return delta.abs().amax((1, 2, 3)) if norm == "Linf" else lengths(delta)


def into_ball(images: Images, center: Images, eps: float, norm: Norm, bounds: tuple[float, float] | None) -> Images:
    """What lies outside, moved straight towards `center`; `project` goes to the nearest point."""
    delta = images - center
    outside = (distance(delta, norm) > eps)[:, None, None, None]
    nearer = center + delta * (eps / (distance(delta, norm) + _TINY))[:, None, None, None]
    return torch.where(outside, project(nearer, center, eps, norm, bounds), images)


def steepest(gradient: Images, norm: Norm) -> Images:
    """The direction of length one in which a linear function with this gradient rises most; zero where it is zero.

    A NaN stays one, so that the image becomes one and the runner says so: a gradient that cannot be computed is no
    robustness.
    """
    if norm == "Linf":
        return gradient.sign().where(~gradient.isnan(), gradient)  # torch's sign of NaN is 0
    # By the largest entry first: the square of a small gradient underflows in float32.
    scaled = gradient / (gradient.abs().amax((1, 2, 3), keepdim=True) + _TINY)
    return scaled / (lengths(scaled)[:, None, None, None] + _TINY)


def random_start(
    center: Images, eps: float, norm: Norm, bounds: tuple[float, float] | None, draws: Draws, index: int
) -> Images:
    """A point drawn uniformly from the ball of radius `eps` around `center` (draw `index`), clipped to `bounds`.

    L2: a normal vector has a uniform direction, and u^(1/d) is the radius of a uniform point of the unit ball in d
    dimensions (Muller 1959).
    """
    shape = center.shape[1:]
    if norm == "Linf":
        delta = 2.0 * draws.uniform(index, shape, center.device) - 1.0
    else:
        size = shape.numel()
        normal = draws.normal(index, (size,), center.device)
        # Another index would be another draw; `normal` uses at most the first size + 1 numbers of this one.
        uniform = draws.uniform(index, (size + 2,), center.device)[:, -1:]
        delta = (normal / (normal.norm(dim=1, keepdim=True) + _TINY) * uniform ** (1 / size)).unflatten(1, shape)
    return project(center + (eps * delta).to(center.dtype), center, eps, norm, bounds)
