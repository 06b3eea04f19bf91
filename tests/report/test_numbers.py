"""Numbers as people write them, in one place."""

import math
from typing import Any

import pytest

from robustbench_twicing.report import numbers
from robustbench_twicing.report.numbers import KINDS, Figure, duration, points, size


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1 s"), (40.4, "40 s"), (89.0, "89 s"), (600.0, "10 min"), (9000.0, "2.5 h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (32_183, "32.2 kB"), (5 * 10**9, "5.0 GB"), (2 * 10**13, "20.0 TB")],
)
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *[(0.1, "+10.0"), (-0.0021, "−0.21"), (0.0, "+0.0"), (-0.05, "−5.0"), (0.0049, "+0.49")],
        *[(-1e-9, "+0.00"), (-0.0, "+0.0"), (math.nan, "-"), (None, "-")],
    ],
)
def test_differences_have_a_sign_and_small_ones_two_decimals(value: float | None, text: str) -> None:
    assert points(value) == text


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("percent", 0.98659, "98.7"),
        ("percent2", 0.98659, "98.66"),
        ("percent interval", (0.974, 0.993), "97.4 - 99.3"),
        ("points interval", (-0.012, 0.034), "−1.2 to +3.4"),
        ("points interval", None, ""),
        ("figure", Figure(0.73449, 3), "0.734"),
        ("signed figure", Figure(-3.14, 1), "−3.1"),
        ("signed figure interval", (Figure(-1.0, 2), Figure(2.0, 2)), "−1.00 to +2.00"),
        ("figure interval", (Figure(0.5, 3), Figure(2.0, 3)), "0.500 - 2.000"),
        ("p", 0.0004, "< 0.001"),
        ("p", 0.0419, "0.042"),
        ("count", 50_000, "50,000"),
        ("at least points", None, "nothing"),
        ("at least points", 0.034, "≥ 3.4"),
        ("curve", (("0", 0.6), ("1/255", 0.4)), "0: 60.0  1/255: 40.0"),
        ("date", "2026-11-23T02:00:00+00:00", "2026-11-23"),
        ("name", None, ""),
        ("name", "[bold]", "[bold]"),
    ],
)
def test_kinds_of_column(kind: str, value: Any, text: str) -> None:
    assert KINDS[kind](value) == text


@pytest.mark.parametrize("kind", sorted({"percent", "percent2", "points", "decimal", "decimal3", "p"}))
def test_what_nobody_knows_is_no_number(kind: str) -> None:
    assert KINDS[kind](None) == KINDS[kind](math.nan) == numbers.NOTHING


def test_an_estimate_claims_two_digits() -> None:
    assert [numbers.rounded(value) for value in (7, 42, 123, 98_765)] == [7, 42, 120, 99_000]


def test_a_measured_eps_is_written_as_its_neighbours_are() -> None:
    assert numbers.eps(0.003333, "1/255") == "0.85/255"
    assert numbers.eps(0.12345, "0.5") == "0.123"
