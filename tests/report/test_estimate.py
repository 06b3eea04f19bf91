"""Durations and sizes as people write them."""

import pytest

from robustbench_twicing.report.estimate import duration, size


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
