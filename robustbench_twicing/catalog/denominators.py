"""Whose errors mCE divides by. AlexNet's are in `corruptions/alexnet-errors.csv`, the only copy of those constants."""

import csv
from functools import cache
from pathlib import Path

from robustbench_twicing.catalog.locate import definitions
from robustbench_twicing.errors import UserError
from robustbench_twicing.spec.suite import Denominator

ALEXNET = "alexnet"

_FORM = (
    "It has the columns corruption, severity and error (a fraction in [0, 1]), a row for each pair; "
    "a row clean,0 with the error on clean images gives the relative mCE too."
)


@cache
def denominator(name: str) -> Denominator:
    """What a suite's key `denominator` names: `alexnet`, the path of a CSV file, or else a model of the run.

    Raises `UserError` for a file that cannot be read or holds something else.
    """
    if name == ALEXNET:
        return _read(definitions("corruptions") / "alexnet-errors.csv", "AlexNet")
    if name.endswith(".csv"):
        return _read(Path(name), Path(name).stem)
    return Denominator(name=name)


def _read(path: Path, name: str) -> Denominator:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"The denominator's errors {path} cannot be read: {error}.", _FORM) from None
    errors: dict[str, float] = {}
    for number, row in enumerate(rows, start=2):
        try:
            cell, value = f"{row['corruption']}/{int(row['severity'])}", float(row["error"])
        except (KeyError, TypeError, ValueError):
            raise UserError(f"{path}, line {number}: no corruption, severity and error in {row}.", _FORM) from None
        if not 0 <= value <= 1:
            raise UserError(f"{path}, line {number}: the error {value:g} is no fraction in [0, 1].", _FORM)
        if cell in errors:
            raise UserError(f"{path}, line {number}: {cell} stands there twice.", "Keep one of the rows.")
        errors[cell] = value
    clean = errors.pop("clean/0", None)
    if not errors:
        raise UserError(f"{path} holds no error.", _FORM)
    return Denominator(name=name, clean=clean, errors=errors)
