"""What was found inside models, as values. No torch: pages read it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

Keep = Callable[[str, str, str, str, Sequence[str], np.ndarray], None]
"""Is told model, threat, place, figure, and the id and the value of each image; nan where there is none."""


def nobody(*told: Any) -> None:
    """Keeps nothing."""


class Measured(NamedTuple):
    """A mean over images."""

    value: float
    low: float | None
    """Ends of its 95 % interval: Student's, over images. None below two images."""
    high: float | None
    n: int
    """Images in which there was something to measure."""


class Place(NamedTuple):
    """Where in a network something was measured."""

    number: int
    """In order, from 0."""
    name: str
    """Such as `input`, `block 0`, or a part's own name."""


@dataclass(frozen=True)
class Looked:
    """One model under one threat."""

    model: str
    threat: str
    attention: str
    """Which method its blocks compute, as far as that is known."""
    places: tuple[Place, ...]
    figures: Mapping[tuple[int, str], Measured]
    """By number of the place and key of the figure; what cannot be measured is not there."""
    missing: tuple[str, ...]
    """In sentences, which figures are not there and why."""


@dataclass(frozen=True)
class Collapse:
    """How alike tokens become, and what the attention does to them, block by block."""

    images: int
    data: str
    looked: tuple[Looked, ...]
    """Threat by threat, the models in their order."""
    differences: Mapping[tuple[str, str, int, str], Measured]
    """Model minus the first model on the same images, by model, threat, number of the place and key of the figure."""
