"""Which tokens go into a model together, and which of them are predicted from there. No torch."""

from collections.abc import Iterator
from typing import NamedTuple

from robustbench_twicing.spec.text import WindowRule


class Window(NamedTuple):
    """A piece of a sequence: what goes in, and of what comes behind each of it the places that are scored."""

    start: int
    stop: int
    """Inputs are `sequence[start:stop]`; what is predicted is one place further."""
    scored_from: int
    """The first place of the sequence that is scored here; the last is `stop`."""


def windows(tokens: int, rule: WindowRule) -> Iterator[Window]:
    """The windows of a sequence: each place from the second on is scored in exactly one of them.

    The last reaches back, so that it has `rule.window` tokens too; as the authors read, it has what is left.
    """
    done = 0
    while done + 1 < tokens:
        new = rule.window if done == 0 else rule.stride
        stop = min(done + new, tokens - 1)
        yield Window(done if rule.kind == "paper" else max(0, stop - rule.window), stop, done + 1)
        done = stop
