"""A side of a comparison, and its records threat by threat. No torch."""

from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

from robustbench_twicing.errors import UserError
from robustbench_twicing.metrics.paired import Pairs, match
from robustbench_twicing.spec.suite import SuiteDefinition
from robustbench_twicing.spec.threats import Threat

CLEAN = "clean"


class Side(NamedTuple):
    """One model's records, and what to call it."""

    name: str
    cells: Mapping[str, pd.DataFrame]
    """By threat."""
    suites: Mapping[str, SuiteDefinition]
    """Those of its run, by the name that the records give them."""
    threats: Mapping[str, Threat]
    """Those of its run, by id."""
    elsewhere: bool = False
    """They are another tool's predictions."""

    def has_outliers(self, threat: str) -> bool:
        """It is a suite of outliers, to which no answer is right."""
        return threat in self.suites and self.suites[threat].spec.labels == "outlier"


def matched(threat: str, baseline: pd.DataFrame, candidate: pd.DataFrame) -> Pairs:
    """`paired.match` for the records of one threat, which a `UserError` then names."""
    try:
        return match(baseline, candidate, draws=True)
    except UserError as error:
        raise UserError(f"{threat}: {error.message}", error.hint) from None


def refuse_other_suites(
    name: str, suites: Mapping[str, SuiteDefinition], other: str, others: Mapping[str, SuiteDefinition]
) -> None:
    """Raise `UserError`, naming both sides, if a suite that both have is judged by other classes or labels."""
    for suite in suites.keys() & others.keys():
        if suites[suite].judges != others[suite].judges:
            raise UserError(
                f"{name} and {other} were not judged alike: the classes or labels of the suite {suite!r} are others.",
                "Its definition was edited between the two; repeat one of them.",
            )
