"""The Square Attack on one image, one query after the other (Andriushchenko et al. 2020, arXiv 1912.00049). No code of
the package.

Each number is rounded to float32 where the package rounds it, so that both can be held together bit by bit. `numbers`
are the eight of a query, uniform on [0, 1), and `signs` those of the start: what the package draws, and in its order.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch

HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Of 10,000 queries (section 5)."""
TINY = torch.finfo(torch.float32).tiny


class Found(NamedTuple):
    image: torch.Tensor
    margin: float
    fooled: bool
    evaluations: int


def square(
    logits_of: Callable[[torch.Tensor], torch.Tensor],
    image: torch.Tensor,
    label: int,
    eps: float,
    norm: str,
    queries: int,
    p_init: float,
    stops: bool,
    draw: tuple[Callable[[tuple[int, ...]], torch.Tensor], Callable[[int], torch.Tensor]],
) -> Found:
    """`image` (3, H, W) in [0, 1]; `stops` at the first query that fools; `draw` is (signs, numbers)."""
    signs, numbers = draw
    height, width = image.shape[1:]

    def asked(attempt: torch.Tensor) -> tuple[float, float, bool]:
        logits = logits_of(attempt)
        others = torch.cat((logits[:label], logits[label + 1 :]))
        return float(logits[label] - others.max()), float(logits.abs().max()), int(logits.argmax()) != label

    best = stripes(image, eps, signs) if norm == "Linf" else tiles(image, eps, signs)
    least, _, fooled = asked(best)
    evaluations = 1
    for query in range(queries):
        if stops and fooled:
            break
        side = side_of(query, queries, p_init, height, width, norm)
        attempt = (with_square if norm == "Linf" else with_bump)(best, image, eps, side, numbers(query))
        margin, largest, fools = asked(attempt)
        evaluations += 1
        if margin < least - largest * 2.0**-20 or (stops and fools):
            best, least, fooled = attempt, margin, fools
    return Found(best, least, fooled, evaluations)


def side_of(query: int, queries: int, p_init: float, height: int, width: int, norm: str) -> int:
    halvings = sum(query * 10_000 // queries > after for after in HALVED_AFTER)
    side, most = round((p_init * 0.5**halvings * height * width) ** 0.5), min(height, width)
    if norm == "L2":  # odd, at least 3
        side, most = max(3, side), (most if most % 2 else most - 1)
        side += side % 2 == 0
    return max(1, min(side, most))


def stripes(image: torch.Tensor, eps: float, signs: Callable[[tuple[int, ...]], torch.Tensor]) -> torch.Tensor:
    return (image + eps * signs((3, 1, image.shape[2]))).clamp(0, 1)


def with_square(best: torch.Tensor, image: torch.Tensor, eps: float, side: int, u: torch.Tensor) -> torch.Tensor:
    row, column = place(u[0], image.shape[1], side), place(u[1], image.shape[2], side)
    attempt = best.clone()
    for channel in range(3):
        window = (channel, slice(row, row + side), slice(column, column + side))
        attempt[window] = (image[window] + (-eps if u[2 + channel] < 0.5 else eps)).clamp(0, 1)
    return attempt


def place(u: torch.Tensor, size: int, side: int) -> int:
    return int(u * (size - side + 1))


def hill(height: int, width: int) -> torch.Tensor:
    largest = max(height, width) // 2
    values = torch.zeros(height, width, dtype=torch.float64)
    for row in range(height):
        for column in range(width):
            distance = max(abs(row - height // 2), abs(column - width // 2))
            values[row, column] = sum(1 / (k + 1) ** 2 for k in range(distance, largest + 1))
    return values / (values.norm() + TINY)


def bump(side: int) -> torch.Tensor:
    both = torch.cat((hill(side // 2, side), -hill(side - side // 2, side)))
    return (both / both.norm()).float()


def tiles(image: torch.Tensor, eps: float, signs: Callable[[tuple[int, ...]], torch.Tensor]) -> torch.Tensor:
    height, width = image.shape[1:]
    side = max(1, min(height, width) // 5)
    down, across = height // side, width // side
    top, left = (height - down * side) // 2, (width - across * side) // 2
    sign, shape = signs((4, down, across)), bump(side)
    delta = torch.zeros_like(image)
    for i in range(down):
        for j in range(across):
            tile = shape if sign[3, i, j] > 0 else shape.T
            rows, columns = slice(top + i * side, top + (i + 1) * side), slice(left + j * side, left + (j + 1) * side)
            delta[:, rows, columns] = sign[:3, i, j, None, None] * tile
    return at_length(delta, length(delta), image, eps)


def length(values: torch.Tensor) -> torch.Tensor:
    return torch.linalg.vector_norm(values.flatten(), dtype=torch.float64).float()


def at_length(delta: torch.Tensor, size: torch.Tensor, image: torch.Tensor, eps: float) -> torch.Tensor:
    return torch.addcmul(image, delta, eps / (size + TINY)).clamp(0, 1)


def with_bump(best: torch.Tensor, image: torch.Tensor, eps: float, side: int, u: torch.Tensor) -> torch.Tensor:
    """Algorithm 3, with one budget for all channels, as AutoAttack has it."""
    height, width = image.shape[1:]
    row, column = place(u[0], height, side), place(u[1], width, side)
    other_row, other_column = place(u[5], height, side), place(u[6], width, side)
    window = (slice(None), slice(row, row + side), slice(column, column + side))
    other = (slice(None), slice(other_row, other_row + side), slice(other_column, other_column + side))
    delta = best - image
    held, old = length(delta) ** 2, delta[window].clone()
    delta[window] = 0
    delta[other] = 0
    rest = length(delta) ** 2
    available = (held - rest + (eps**2 - held).clamp_min(0) / 3).clamp_min(0)
    shape = bump(side) if u[7] < 0.5 else bump(side).T
    for channel in range(3):
        sign = -1.0 if u[2 + channel] < 0.5 else 1.0
        new = sign * shape + old[channel] / (length(old[channel]) + TINY)
        delta[channel, window[1], window[2]] = new / (length(new) + TINY) * available.sqrt()
    return at_length(delta, (rest + 3 * available).sqrt(), image, eps)
