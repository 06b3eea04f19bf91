"""Figures over whole curves and suites, which have a unit of their own: what tables of them share."""

from robustbench_twicing.report.numbers import Figure
from robustbench_twicing.report.page import Column, Into

FIGURE = (
    Column("figure", "figure"),
    Column("better", "better", narrow=Into("figure", "\n", " is better")),
)
"""Which figure it is, and what of it is better."""


def shown(value: float, scale: int, unit: str) -> Figure:
    """A figure in its unit: `scale` times the value, with two decimals, or three without a unit."""
    return Figure(scale * value, 2 if unit else 3)


def level(alpha: float) -> str:
    """Heading of intervals at level 1 - alpha."""
    return f"{100 * (1 - alpha):g} % interval"
