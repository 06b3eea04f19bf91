"""What was found of a model's probabilities, as values. No torch: pages read it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple


class Value(NamedTuple):
    """A figure of `METRICS`, with the ends of its 95 % interval where it has one."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Calibrated:
    """One model: its temperature, and what it makes of its probabilities."""

    model: str
    threat: str
    """The clean images: of the data set, or of a suite's classes."""
    fitted: int
    """Images that the temperature was fitted on."""
    judged: int
    """The others, on which every figure is measured."""
    temperature: float
    figures: Mapping[tuple[str, bool], Value]
    """By name of the metric, and whether after scaling."""


@dataclass(frozen=True)
class Told:
    """How well one score tells a threat's images from clean ones, which nothing was fitted on."""

    model: str
    threat: str
    clean: int
    others: int
    score: str
    figures: Mapping[str, Value]
    """By name of the metric."""


class Calibration(NamedTuple):
    """All of it."""

    data: str
    models: tuple[Calibrated, ...]
    told: tuple[Told, ...]
    missing: tuple[str, ...]
    """In sentences, which scores are not there and why."""
