"""Which of several ways to do the same is the fastest here, by measurement."""

from collections.abc import Callable, Mapping, Sequence

_MIN_ROUNDS, _MAX_ROUNDS, _ENOUGH_SECONDS = 2, 8, 0.25
_MIN_GAIN = 0.05
"""Another way than the usual one must be this much faster, so that noise does not change a run's numbers."""


def in_turns(ways: Sequence[str], seconds: Callable[[str], float]) -> tuple[dict[str, float], int]:
    """Of each way to do the same work the `seconds` of its fastest round, and how many rounds counted.

    Each round takes all ways in turns. The first one warms up; two to eight more follow, until a quarter of a second
    has been measured.
    """
    fastest = dict.fromkeys(ways, float("inf"))
    measured, rounds = 0.0, -1
    while rounds < _MIN_ROUNDS or (rounds < _MAX_ROUNDS and measured < _ENOUGH_SECONDS):
        for way in ways:
            took = seconds(way)
            if rounds >= 0:
                fastest[way] = min(fastest[way], took)
                measured += took
        rounds += 1
    return fastest, rounds


def first_unless_slower(seconds: Mapping[str, float]) -> str:
    """The fastest way, where the first one, which is the usual one, gets the benefit of the doubt."""
    usual = next(iter(seconds))
    return min(seconds, key=lambda way: seconds[way] * (1 if way == usual else 1 + _MIN_GAIN))
