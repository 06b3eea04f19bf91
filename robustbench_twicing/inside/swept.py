"""What `sweep` found, as values. No torch: pages read it."""

from dataclasses import dataclass
from typing import NamedTuple


class Cell(NamedTuple):
    """One setting of the blocks."""

    way: str
    """`none`, `one block`, `from the end` or `strength`."""
    name: str
    attention: str
    """The same as an attention that other commands take, such as `twicing@4,5`."""
    as_trained: bool
    """It is how the weights were trained; every other setting is drop-in."""
    seed: int | None
    """Of weights that were trained for this setting; None: the weights of the model that was named."""
    clean: float
    clean_interval: tuple[float, float]
    robust: float
    robust_interval: tuple[float, float]
    right: tuple[str, ...] = ()
    """Ids of the samples that are right without an attack."""
    standing: tuple[str, ...] = ()
    """Ids of those that are right under it."""


@dataclass(frozen=True)
class Sweep:
    """One model under every setting."""

    model: str
    attention: str
    threat: str
    n: int
    blocks: int
    cells: tuple[Cell, ...]
    """On the model's own weights."""
    retrained: tuple[Cell, ...] = ()
    """On weights that were trained for each setting, one cell for each seed."""
    recipe: str = ""
    """That trained them."""
