"""AlexNet's errors on ImageNet-C, the yardstick of mCE: `corruptions/alexnet-errors.csv` is their only copy."""

import csv
from typing import NamedTuple

from robustbench_twicing.catalog.locate import definitions


class AlexNetErrors(NamedTuple):
    """Top-1 errors of AlexNet, as fractions."""

    clean: float
    corrupted: dict[tuple[str, int], float]
    """By (corruption, severity 1-5), for the 15 common corruptions. None are known for the four extra ones."""


def alexnet_errors() -> AlexNetErrors:
    """The denominators of mCE and relative mCE; each row of the file names its source."""
    with (definitions("corruptions") / "alexnet-errors.csv").open(newline="", encoding="utf-8") as file:
        errors = {(row["corruption"], int(row["severity"])): float(row["error"]) for row in csv.DictReader(file)}
    clean = errors.pop(("clean", 0))
    return AlexNetErrors(clean, errors)
