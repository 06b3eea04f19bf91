"""How results show themselves in a notebook. `report/notebook.py`, which stands above, says how. No torch."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

VIEWS: dict[type, Callable[[Any], str]] = {}
"""Kind of result -> HTML of one."""


class Viewed:
    """What a notebook shows as tables, once `robustbench_twicing.api` is loaded."""

    def _repr_html_(self) -> str | None:
        view = VIEWS.get(type(self))
        return view(self) if view else None


def counted(verdicts: Iterable[str]) -> str:
    """How often there is each verdict, in words: what a result is, in a line."""
    return ", ".join(f"{number} × {verdict}" for verdict, number in Counter(verdicts).items()) or "nothing to compare"
