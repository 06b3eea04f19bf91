"""The Square Attack: random search with square windows."""

import math

import torch

from robustbench_twicing.engine.contract import Perturbed, Queries
from robustbench_twicing.engine.losses import margin
from robustbench_twicing.engine.projections import lengths
from robustbench_twicing.engine.standing import Standing
from robustbench_twicing.seeding import Draws
from robustbench_twicing.spec.attacks import SquareSettings
from robustbench_twicing.spec.threats import AttackThreat
from robustbench_twicing.tensors import Images, Labels, PerSample

# Andriushchenko et al. 2020 (arXiv 1912.00049), section 5: of 10,000 queries, those after which the side's square is
# halved.
_HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)

_TOGETHER = 32
"""Squares whose random numbers are drawn at once: setting up a sample's generator costs more than the numbers."""

_NUMBERS = 8
"""Random numbers of a square: where its row and column lie, a sign for each channel; for L2 also the row and column of
the window that it takes from, and which way it lies."""

_ROUNDING = 2.0**-20
"""Of a float32 logit, relative to the largest one: 2^-24 for each of the operations behind it, of which some add up."""

_TINY = torch.finfo(torch.float32).tiny


def square(model: Queries, images: Images, labels: Labels, threat: AttackThreat, draws: Draws) -> Perturbed:
    """The Square Attack on the margin loss (Andriushchenko et al. 2020, arXiv 1912.00049, algorithms 1 to 3).

    `images` (batch, 3, H, W) in the threat's space; returns the same shape, within eps of `images`. It starts at the
    corners of the ball that form vertical stripes (L∞), or at a grid of tiles (L2); each query then tries to put one
    square on the best image so far, and keeps it if the label's margin falls by more than rounding. With
    `iterate = "best"` a sample leaves the batch as soon as a try fools the model; one that is never fooled comes back
    as the image of least margin, as every sample does with `"last"`. No gradients.

    Every sample has its own squares, of the same size at the same query. Draw 0 is the start, draw 1 + i the squares
    from 32 i on.
    """
    settings = threat.settings
    assert isinstance(settings, SquareSettings)
    eps, bounds, linf = float(threat.eps), threat.bounds, settings.norm == "Linf"
    height, width = images.shape[2:]
    standing = Standing(images, labels, threat, draws)
    if eps == 0:
        return standing.perturbed()
    center = images
    attempt = _stripes(images, eps, bounds, draws) if linf else _tiles(images, eps, bounds, draws)
    current, least = attempt, torch.full_like(images[:, 0, 0, 0], torch.inf)
    numbers, bump = images.new_empty(0), images.new_empty(0)
    for query in range(settings.queries + 1):
        if query > 0:
            block, place = divmod(query - 1, _TOGETHER)
            if place == 0:
                numbers = standing.draws.uniform(1 + block, (_TOGETHER, _NUMBERS), images.device)
            side = _side(query - 1, settings, height, width)
            if linf:
                attempt = _with_square(current, center, eps, bounds, side, numbers[:, place])
            else:
                if len(bump) != side:
                    bump = _bump(side).to(images)
                attempt = _with_bump(current, center, eps, bounds, bump, numbers[:, place])
        logits = model(attempt)
        standing.count(forwards=1)
        if (left := standing.judge(logits, attempt)) is not None:
            center, attempt, logits = center[left], attempt[left], logits[left]
            current, least = current[left], least[left]
            numbers = numbers[left] if query > 0 else numbers
            if not standing:
                break
        value = margin(logits, standing.labels)
        # A gain within the logits' rounding is none: near ties, which come from squares that change next to nothing,
        # would be decided by the batch size. A NaN counts as better: it must come back, so that the runner can say
        # that the sample failed.
        better = ~(value >= least - _ROUNDING * logits.abs().amax(1))
        current[better] = attempt[better]
        least = torch.where(better, value, least)
    standing.keep(current)
    return standing.perturbed()


def _side(query: int, settings: SquareSettings, height: int, width: int) -> int:
    """Side of the square of a query (from 0), in pixels; the schedule is stretched to the number of queries."""
    scaled = query * 10_000 // settings.queries
    share = settings.p_init / 2 ** sum(scaled > after for after in _HALVED_AFTER)
    side, most = round(math.sqrt(share * height * width)), min(height, width)
    if settings.norm == "L2":  # odd and at least 3: a bump has two halves and a middle
        side, most = max(side, 3) | 1, most - (most + 1) % 2
    return max(1, min(side, most))


def _starts(numbers: PerSample, size: int, side: int) -> torch.Tensor:
    """(batch,) int64: where a window of `side` begins, any place among `size` alike; `numbers` uniform on [0, 1)."""
    return (numbers * (size - side + 1)).long()


def _corner(center: Images, offset: torch.Tensor, bounds: tuple[float, float] | None) -> Images:
    """`center` moved by ±eps, clipped to `bounds`."""
    moved = center + offset.to(center.dtype)
    return moved if bounds is None else moved.clamp_(*bounds)


def _stripes(center: Images, eps: float, bounds: tuple[float, float] | None, draws: Draws) -> Images:
    """Columns of one sign for each channel (paper, section 4.3)."""
    return _corner(center, eps * draws.signs(0, (3, 1, center.shape[3]), center.device), bounds)


def _with_square(
    current: Images,
    center: Images,
    eps: float,
    bounds: tuple[float, float] | None,
    side: int,
    numbers: torch.Tensor,
) -> Images:
    """Each image with one corner of the ball inside a square. Algorithm 2 adds ±2 eps and projects; the best image is a
    corner everywhere, so that comes to the same."""
    height, width = current.shape[2:]
    window = _window(_starts(numbers[:, 0], height, side), _starts(numbers[:, 1], width, side), side)
    offset = torch.where(numbers[:, 2:5, None, None] < 0.5, -eps, eps)
    attempt = current.clone()
    attempt[window] = _corner(center[window], offset, bounds)
    return attempt


def _bump(side: int) -> torch.Tensor:
    """(side, side) float64 of length one: a hill in the upper half, a valley in the lower (paper, eq. 2).

    Each half has length one before they are put together, as in max-andr/square-attack (attack.py).
    """
    upper, lower = _hill(side // 2, side), _hill(side - side // 2, side)
    both = torch.cat((upper, -lower))
    result: torch.Tensor = both / both.norm()
    return result


def _hill(height: int, width: int) -> torch.Tensor:
    """(height, width) of length one: at distance d (the larger of rows and columns) from the middle, the sum of
    1 / (k + 1)² from k = d on, up to the largest d."""
    rows = (torch.arange(height) - height // 2).abs()
    columns = (torch.arange(width) - width // 2).abs()
    terms = torch.arange(1, max(height, width) // 2 + 2, dtype=torch.float64) ** -2.0
    tails = terms.flip(0).cumsum(0).flip(0)
    values = tails[torch.maximum(rows[:, None], columns[None, :])]
    result: torch.Tensor = values / (values.norm() + _TINY)
    return result


def _tiles(images: Images, eps: float, bounds: tuple[float, float] | None, draws: Draws) -> Images:
    """A grid of 5 x 5 bumps (more where the size cannot be divided so), each with its own signs and way to lie."""
    height, width = images.shape[2:]
    side = max(1, min(height, width) // 5)
    down, across = height // side, width // side
    signs = draws.signs(0, (4, down, across), images.device).to(images.dtype)
    bump = _bump(side).to(images)
    upright = (signs[:, 3] > 0)[..., None, None]
    tiles = signs[:, :3, :, :, None, None] * torch.where(upright, bump, bump.T)[:, None]
    top, left = (height - down * side) // 2, (width - across * side) // 2
    delta = torch.zeros_like(images)
    grid = tiles.permute(0, 1, 2, 4, 3, 5).reshape(len(images), 3, down * side, across * side)
    delta[:, :, top : top + down * side, left : left + across * side] = grid
    return _at_length(delta, lengths(delta), images, eps, bounds)


def _with_bump(
    current: Images,
    center: Images,
    eps: float,
    bounds: tuple[float, float] | None,
    bump: torch.Tensor,
    numbers: torch.Tensor,
) -> Images:
    """Algorithm 3: one window of the perturbation is emptied, and what it held goes into a bump in another, together
    with what clipping had left unused of the ball.

    As in AutoAttack (fra31/auto-attack, autoattack/square.py) each channel of the bump gets what all channels of the
    windows held, and the whole is scaled to eps; in the paper each gets its own. Measured on the embedded `deit` (64
    digits, eps 1.5, 150 queries, 3 seeds) the mean margin falls from 4.02 to 2.85 so, to 2.91 the other way.
    """
    side, (height, width) = len(bump), current.shape[2:]
    row, column = _starts(numbers[:, 0], height, side), _starts(numbers[:, 1], width, side)
    other_row, other_column = _starts(numbers[:, 5], height, side), _starts(numbers[:, 6], width, side)
    window, other = _window(row, column, side), _window(other_row, other_column, side)
    signs = torch.where(numbers[:, 2:5, None, None] < 0.5, -1.0, 1.0).to(current.dtype)
    upright = numbers[:, 7, None, None] < 0.5

    delta = current - center
    held = lengths(delta).square()
    old = delta[window]
    delta[window] = 0.0
    delta[other] = 0.0
    rest = lengths(delta).square()
    unused = (eps**2 - held).clamp_min(0.0)
    available = (held - rest + unused / 3).clamp_min(0.0)  # squared, for each channel
    shape = signs * torch.where(upright, bump, bump.T)[:, None] + old / (_length(old) + _TINY)
    delta[window] = shape / (_length(shape) + _TINY) * available.sqrt()[:, None, None, None]
    return _at_length(delta, (rest + 3 * available).sqrt(), center, eps, bounds)


def _at_length(
    delta: Images, length: PerSample, center: Images, eps: float, bounds: tuple[float, float] | None
) -> Images:
    """`center` moved by `eps` along `delta`, whose length is known, clipped to `bounds`."""
    scale = eps / (length + _TINY)
    moved = torch.addcmul(center, delta, scale[:, None, None, None])
    return moved if bounds is None else moved.clamp_(*bounds)


def _length(windows: torch.Tensor) -> torch.Tensor:
    """(batch, 3, 1, 1): Euclidean norm of each channel, summed as in `lengths`."""
    exact = torch.linalg.vector_norm(windows, dim=(2, 3), keepdim=True, dtype=torch.float64)
    result: torch.Tensor = exact.to(windows.dtype)
    return result


def _window(row: torch.Tensor, column: torch.Tensor, side: int) -> tuple[torch.Tensor, ...]:
    """Index of the (batch, 3, side, side) values of a window that begins at `row` and `column` of each image."""
    device = row.device
    within = torch.arange(side, device=device)
    return (
        torch.arange(len(row), device=device)[:, None, None, None],
        torch.arange(3, device=device)[:, None, None],
        (row[:, None] + within)[:, None, :, None],
        (column[:, None] + within)[:, None, None, :],
    )
