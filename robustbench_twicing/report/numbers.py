"""The only formatting of numbers: what a value of a table's column looks like, in every format. No markup.

Fractions are written as percentages, differences of fractions as percentage points with a sign. What is missing (None
or nan) is `-`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from robustbench_twicing.report.marks import BARS

MINUS = "−"
NOTHING = "-"


class Trend(NamedTuple):
    """A series over time, oldest first; None where there is no value."""

    values: tuple[float | None, ...]
    least: float = 0.0
    """The smallest range that fills the height: the width of an interval keeps noise looking like noise."""


class Figure(NamedTuple):
    """A number of a column whose rows are different figures, each with its decimals."""

    number: float
    decimals: int


def is_missing(value: Any) -> bool:
    """There is no number: None or nan."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def percent(value: float | None, decimals: int = 1) -> str:
    """A fraction as a percentage, one decimal unless said otherwise."""
    return NOTHING if value is None or is_missing(value) else f"{100 * value:.{decimals}f}"


def signed(value: float | None, decimals: int) -> str:
    """With a plus or a true minus in front; what rounds to zero is `+0.0`."""
    if value is None or is_missing(value):
        return NOTHING
    rounded = round(value, decimals) + 0.0  # no minus before a zero
    return f"{rounded:+.{decimals}f}".replace("-", MINUS)


def points(value: float | None, decimals: int | None = None) -> str:
    """A difference of fractions in percentage points, signed: one decimal; two below half a point."""
    if value is None or is_missing(value):
        return NOTHING
    return signed(100 * value, (2 if 0 < abs(100 * value) < 0.5 else 1) if decimals is None else decimals)


def decimal(value: float | None, decimals: int = 2) -> str:
    """A plain number with two decimals unless said otherwise."""
    return NOTHING if value is None or is_missing(value) else f"{value:.{decimals}f}"


def p_value(p: float | None) -> str:
    """As usual in tables: three decimals, `< 0.001` below."""
    if p is None or is_missing(p):
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def count(value: int | None) -> str:
    """Thousands apart: `50,000`."""
    return NOTHING if value is None else f"{value:,}"


def part_of(some: int, everything: int) -> str:
    """`20 of 50,000`; only how many there are if that is all of them."""
    return count(some) if some >= everything else f"{count(some)} of {count(everything)}"


def rounded(value: int) -> int:
    """Two leading digits, for an estimate that is no better."""
    scale = 10 ** max(0, len(str(value)) - 2)
    result: int = round(value / scale) * scale
    return result


def duration(seconds: float | None) -> str:
    """Such as `40 s`, `12 min` or `3.5 h`."""
    if seconds is None:
        return NOTHING
    if seconds == 0:
        return "0 s"
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 1 else "1 s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def size(count_: int | None) -> str:
    """Bytes with a unit, such as `1.2 MB`."""
    if count_ is None:
        return NOTHING
    amount = float(count_)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{count_} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def eps(value: float, like: str) -> str:
    """A measured eps in the notation of another one: `0.85/255` or `0.123`."""
    return f"{255 * value:.2f}/255" if like.endswith("/255") else f"{value:.3g}"


def interval(ends: Sequence[float] | None, end: Callable[[float], str], between: str) -> str:
    """Both ends of an interval; nothing at all if there is none."""
    return "" if ends is None or any(map(is_missing, ends)) else between.join(map(end, ends))


def curve(points_: Sequence[tuple[str, float]]) -> str:
    """Accuracies over eps: `0: 98.7  1/255: 96.3`."""
    return "  ".join(f"{name}: {percent(value)}" for name, value in points_)


def sparkline(values: Sequence[float | None], least: float = 0.0) -> str:
    """A bar for each value between the smallest and the largest; a blank for None. `least` as in `Trend`."""
    known = [value for value in values if value is not None]
    if not known:
        return " " * len(values)
    span = max(max(known) - min(known), least)
    low = (max(known) + min(known) - span) / 2
    top = len(BARS) - 1
    return "".join(
        " " if value is None else BARS[round(top * (value - low) / span) if span else top // 2] for value in values
    )


def _text(value: Any) -> str:
    return "" if is_missing(value) else str(value)


def _at_least(value: float | None) -> str:
    return "nothing" if value is None else f"≥ {percent(value)}"


TEXT_KINDS = ("name", "prose", "curve", "trend")
"""Kinds of column that are no numbers: they stand left and may be folded. A name may be folded anywhere, prose between
words; of a trend the oldest part may be left out."""

KINDS: Mapping[str, Callable[[Any], str]] = {
    "name": _text,
    "prose": _text,
    "curve": curve,
    "trend": lambda trend: sparkline(trend.values, trend.least),
    "eps": _text,
    "date": lambda when: str(when)[:10],
    "count": count,
    "part": lambda part: part_of(*part),
    "percent": percent,
    "percent2": lambda value: percent(value, 2),
    "points": points,
    "points2": lambda value: points(value, 2),
    "decimal": decimal,
    "decimal3": lambda value: decimal(value, 3),
    "decimal6": lambda value: decimal(value, 6),
    "figure": lambda value: decimal(value.number, value.decimals),
    "signed figure": lambda value: signed(value.number, value.decimals),
    "decimal3 interval": lambda ends: interval(ends, lambda end: decimal(end, 3), " - "),
    "signed decimal4": lambda value: signed(value, 4),
    "signed decimal4 interval": lambda ends: interval(ends, lambda end: signed(end, 4), " to "),
    "p": p_value,
    "at least points": _at_least,
    "percent interval": lambda ends: interval(ends, percent, " - "),
    "percent2 interval": lambda ends: interval(ends, lambda end: percent(end, 2), " - "),
    "points interval": lambda ends: interval(ends, points, " to "),
    "figure interval": lambda ends: " - ".join(decimal(end.number, end.decimals) for end in ends),
    "signed figure interval": lambda ends: " to ".join(signed(end.number, end.decimals) for end in ends),
    "duration": duration,
    "bytes": size,
}
"""Kind of a column -> its values as text."""
