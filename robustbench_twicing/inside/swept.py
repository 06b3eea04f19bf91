"""What `sweep` found, as values. No torch: pages read it."""

from dataclasses import dataclass
from typing import NamedTuple


class Cell(NamedTuple):
    """One setting of the blocks."""

    way: str
    """`none`, `one block`, `from the end` or `strength`."""
    name: str
    as_trained: bool
    """It is how the weights were trained; every other setting is drop-in."""
    clean: float
    clean_interval: tuple[float, float]
    robust: float
    robust_interval: tuple[float, float]


@dataclass(frozen=True)
class Sweep:
    """One model's weights under every setting."""

    model: str
    attention: str
    threat: str
    n: int
    blocks: int
    cells: tuple[Cell, ...]
