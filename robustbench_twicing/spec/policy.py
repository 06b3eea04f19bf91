"""What a gate lets through. Part of a plan file (`[gate]`), kept in the run's manifest. No torch, no files."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Literal

from pydantic import Field

from robustbench_twicing.errors import UserError
from robustbench_twicing.spec.values import Frozen

Drop = Annotated[float, Field(gt=0, lt=1)]
"""Of accuracy, as a fraction."""
Accuracy = Annotated[float, Field(ge=0, le=1)]
"""As a fraction: 0.95 is 95 %."""


MOST_ALPHA = 0.1
"""A gate that is wrong more often says nothing when it passes."""


class Policy(Frozen):
    """When a run is worse than its baseline. Cells are named `MODEL:THREAT`, with `*` and `?` as in a shell."""

    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    """Chance, at most, that a run whose drops are all within their tolerance is called regressed, and that a cell which
    dropped by its tolerance passes. A gate takes `MOST_ALPHA` at most."""
    tolerance: Drop = 0.01
    """Drop in accuracy that is let through, as a fraction: 0.01 is one percentage point."""
    tolerances: Mapping[str, Drop] = Field(default_factory=dict)
    """Other tolerances for some cells; the last pattern that fits counts."""
    floors: Mapping[str, Accuracy] = Field(default_factory=dict)
    """Accuracies that a cell must reach, whatever the baseline; the last pattern that fits counts."""
    missing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the samples answered in the baseline that a cell may lack and still pass: not there, or skipped."""
    new: Literal["inconclusive", "pass"] = "inconclusive"
    """What a run is at best that has cells which the baseline lacks: nobody accepted them."""
    fail_on: Literal["regressed", "inconclusive"] = "regressed"
    """The mildest verdict that exits as a regression does."""
    inconclusive_nights: int | None = Field(default=5, ge=1)
    """So many inconclusive nights of a plan in a row exit as a regression does; None: never."""

    def tolerance_for(self, model: str, threat: str) -> float:
        """The drop that is let through in one cell."""
        fitting = _fitting(self.tolerances, model, threat)
        return fitting[-1] if fitting else self.tolerance

    def floor_for(self, model: str, threat: str) -> float | None:
        """The accuracy that one cell must reach; None if there is none."""
        fitting = _fitting(self.floors, model, threat)
        return fitting[-1] if fitting else None

    def patterns(self) -> list[str]:
        """Every pattern, so that one that fits nothing can be named."""
        return list(dict.fromkeys([*self.tolerances, *self.floors]))


def wrong_alpha(policy: Policy) -> UserError | None:
    """What is wrong with the policy's alpha; None if nothing is."""
    if policy.alpha <= MOST_ALPHA:
        return None
    return UserError(
        f"alpha = {policy.alpha:g} is above {MOST_ALPHA:g}: that often a pass would be false.",
        f"Choose {MOST_ALPHA:g} or less; to let more through, widen the tolerance.",
    )


def fits(pattern: str, model: str, threat: str) -> bool:
    """Whether a cell's `MODEL:THREAT` fits a pattern."""
    return fnmatchcase(f"{model}:{threat}", pattern)


def _fitting(table: Mapping[str, float], model: str, threat: str) -> list[float]:
    return [value for pattern, value in table.items() if fits(pattern, model, threat)]
