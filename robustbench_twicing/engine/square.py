"""The Square Attack: random search with square windows."""

import math
from functools import cache

import torch

from robustbench_twicing.engine.contract import Perturbed, Queries
from robustbench_twicing.engine.losses import fooled, margin
from robustbench_twicing.engine.projections import lengths
from robustbench_twicing.engine.standing import Standing
from robustbench_twicing.seeding import Draws
from robustbench_twicing.spec.attacks import SquareSettings
from robustbench_twicing.spec.threats import AttackThreat
from robustbench_twicing.tensors import Counts, Images, Labels, Mask, PerSample

# Andriushchenko et al. 2020 (arXiv 1912.00049), section 5: of 10,000 queries, those after which the side's square is
# halved.
_HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)

_TOGETHER = 32
"""Squares whose random numbers are drawn at once: setting up a sample's generator costs more than the numbers."""

_AHEAD = (1, 2, 3, 4, 6, 8, 12, 16, 24, _TOGETHER)
"""Squares of a sample that can be tried at once."""

_FIXED_ON_CPU, _FIXED_ELSEWHERE = 8.0 * 32**2, 32.0
"""Of how many images the cost is that of calling the model: on a CPU 8 of 32 x 32 pixels, for the shipped networks, and
fewer of larger ones; on other devices not measured. A poor guess costs time and changes nothing that is found."""

_FORGETS = 0.95

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

    A call of the model for a few images costs little more than one for a single image. So a sample's next squares are
    evaluated side by side on its best image so far; the first that gains is kept, and those behind it are evaluated
    again on the new image. Every image is the one that a query at a time would find, and `forwards` counts what that
    would evaluate: how many go side by side depends on how many samples are at work.
    """
    settings = threat.settings
    assert isinstance(settings, SquareSettings)
    eps, bounds = float(threat.eps), threat.bounds
    standing = Standing(images, labels, threat, draws)
    if eps == 0:
        return standing.perturbed()
    start = (_stripes if settings.norm == "Linf" else _tiles)(images, eps, bounds, draws)
    logits = model(start)
    standing.count(forwards=1)
    search = _Search(images, start, margin(logits, labels), settings)
    if (left := standing.judge(logits, start)) is not None:
        search.take(left)
    while standing and (tries := search.tries(model.batch_size)):
        search.draw([row for row, _ in tries], standing.draws)
        done = _tried(model, search, tries, standing, threat)
        if done:
            gone = torch.zeros_like(standing.rows, dtype=torch.bool)
            gone[done] = True
            search.take(standing.leave(gone, search.current))
    standing.keep(search.current)
    return standing.perturbed()


class _Search:
    """The samples at work, one row each."""

    def __init__(self, center: Images, start: Images, least: PerSample, settings: SquareSettings) -> None:
        height, width = center.shape[2:]
        self.sides = [_side(query, settings, height, width) for query in range(settings.queries)]
        self.center = center
        self.current = start.clone()
        """The best so far."""
        self.least = least.clone()
        """Its margin."""
        self.numbers = torch.zeros(len(center), _TOGETHER, _NUMBERS, device=center.device)
        """Of the squares among which a sample's next one is."""
        self.next = [0] * len(center)
        """Each sample's next query, from 0."""
        self.lately = (0.0, 0.0)
        """Queries that gained, and queries, those of a call weighing less with every call after it."""
        on_cpu = center.device.type == "cpu"
        self.fixed = _FIXED_ON_CPU / (height * width) if on_cpu else _FIXED_ELSEWHERE

    def take(self, mask: Mask) -> None:
        """Only those of `mask` stay."""
        self.center, self.current, self.least = self.center[mask], self.current[mask], self.least[mask]
        self.numbers = self.numbers[mask]
        self.next = [query for query, stays in zip(self.next, mask.tolist(), strict=True) if stays]

    def tries(self, most: int) -> list[tuple[int, int]]:
        """Rows whose queries are not spent, and how many squares of each to try at once: `most` in all, if that is
        enough for one of each."""
        rows = [row for row, query in enumerate(self.next) if query < len(self.sides)]
        ahead = _ahead(len(rows), self.lately, self.fixed, most) if rows else 0
        left = [(row, min(_TOGETHER - self.next[row] % _TOGETHER, len(self.sides) - self.next[row])) for row in rows]
        return [(row, min(ahead, more)) for row, more in left]

    def draw(self, rows: list[int], draws: Draws) -> None:
        """New numbers for those whose next square is the first of a draw."""
        drawn: dict[int, list[int]] = {}
        for row in rows:
            block, place = divmod(self.next[row], _TOGETHER)
            if place == 0:
                drawn.setdefault(block, []).append(row)
        for block, some in drawn.items():
            self.numbers[some] = draws.take(some).uniform(1 + block, (_TOGETHER, _NUMBERS), self.numbers.device)


def _ahead(count: int, lately: tuple[float, float], fixed: float, most: int) -> int:
    """How many squares of each of `count` samples to try at once, `most` in all: what costs least for each square that
    turns out to be of use, where a call costs as much as `fixed` images and each image in it."""
    gained, queries = lately
    rate = (gained + 1) / (queries + 1)

    def cost(ahead: int) -> float:
        return (fixed + count * ahead) * rate / (1 - (1 - rate) ** ahead)

    return min((ahead for ahead in _AHEAD if ahead == 1 or count * ahead <= most), key=cost)


def _tried(
    model: Queries, search: _Search, tries: list[tuple[int, int]], standing: Standing, threat: AttackThreat
) -> list[int]:
    """Try so many squares of each row, and keep the first that gains. Returns whom it fools."""
    owners = [row for row, ahead in tries for _ in range(ahead)]
    queries = [search.next[row] + step for row, ahead in tries for step in range(ahead)]
    device = search.least.device
    owner = torch.tensor(owners, device=device)
    attempts = _attempts(search, owner, queries, threat)
    logits = model(attempts)
    labels = standing.labels[owner]
    values = margin(logits, labels)
    # A gain within the logits' rounding is none: near ties, which come from squares that change next to nothing, would
    # be decided by the batch size. A NaN counts as better: it must come back, so that the runner can say that the
    # sample failed.
    better = ~(values >= search.least[owner] - _ROUNDING * logits.abs().amax(1))
    fools = fooled(logits, labels) if standing.judges else torch.zeros_like(better)
    gains, ends = torch.stack((better | fools, fools)).tolist()
    kept, places, spent, begin = [], [], [0] * len(standing), 0
    for row, ahead in tries:
        first = next((place for place in range(begin, begin + ahead) if gains[place]), None)
        spent[row] = ahead if first is None else first - begin + 1
        search.next[row] += spent[row]
        if first is not None:
            kept.append(row)
            places.append(first)
        begin += ahead
    if kept:
        rows, found = torch.tensor(kept, device=device), torch.tensor(places, device=device)
        search.current[rows], search.least[rows] = attempts[found], values[found]
    gained, evaluated = search.lately
    search.lately = (_FORGETS * gained + len(kept), _FORGETS * evaluated + sum(spent))
    standing.count(forwards=torch.tensor(spent, device=device))
    return [row for row, place in zip(kept, places, strict=True) if ends[place]]


def _attempts(search: _Search, owner: Counts, queries: list[int], threat: AttackThreat) -> Images:
    """The best images of `owner`, each with the square of one of its queries."""
    places = torch.tensor([query % _TOGETHER for query in queries], device=owner.device)
    numbers, sides = search.numbers[owner, places], [search.sides[query] for query in queries]
    current, center = search.current[owner], search.center[owner]
    if len(set(sides)) == 1:  # nearly always: a side serves many queries
        return _with(sides[0], current, center, numbers, threat)
    attempts, side_of = torch.empty_like(current), torch.tensor(sides, device=owner.device)
    for side in set(sides):
        part = side_of == side
        attempts[part] = _with(side, current[part], center[part], numbers[part], threat)
    return attempts


def _with(side: int, current: Images, center: Images, numbers: torch.Tensor, threat: AttackThreat) -> Images:
    """Each image with a square of `side`; `current` may be changed in place."""
    eps, bounds = float(threat.eps), threat.bounds
    if threat.settings.norm == "Linf":
        return _with_square(current, center, eps, bounds, side, numbers)
    return _with_bump(current, center, eps, bounds, _bump(side).to(center), numbers)


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
    """`current`, in place, with one corner of the ball inside a square of each image.

    Algorithm 2 adds ±2 eps and projects; the best image is a corner everywhere, so that comes to the same.
    """
    height, width = current.shape[2:]
    window = _window(_starts(numbers[:, 0], height, side), _starts(numbers[:, 1], width, side), side)
    offset = torch.where(numbers[:, 2:5, None, None] < 0.5, -eps, eps)
    current[window] = _corner(center[window], offset, bounds)
    return current


@cache
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
