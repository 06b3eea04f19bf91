"""Corruption error, mCE and their relative forms (Hendrycks and Dietterich 2019, arXiv 1903.12261, section 4).

Errors are fractions in [0, 1], by (corruption, severity). Each may also be an array with one value for each image; the
results then have one value for each image too, and their mean is the result for the data set: see
`intervals.mean_interval`. CE values are in percent of the denominator model: 100 means as many errors as that model
makes (AlexNet on ImageNet-C). Which corruptions and severities count is the suite's to say; ImageNet-C's mean is over
exactly 15 at five severities.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Bool

from robustbench_twicing.errors import UserError

Error = float | np.ndarray
"""One error, or one for each image (0 or 1)."""

Cell = tuple[str, int]
"""(corruption, severity 1-5)."""

Families = Mapping[str, Sequence[str]]
"""The corruptions that a mean is taken over, by family."""


def errors_by_cell(outcomes: Bool[np.ndarray, "samples cells"], cells: Sequence[Cell]) -> dict[Cell, np.ndarray]:
    """The error of each image (0. or 1.) by cell, from whether it counts as right under each of `cells`."""
    return {cell: (~outcomes[:, index]).astype(float) for index, cell in enumerate(cells)}


def mean_error(errors: Mapping[Cell, Error], families: Families, severities: Sequence[int]) -> Error:
    """Plain mean error over every corruption of `families` at every severity, in [0, 1].

    Over ImageNet-C it is often printed as "unnormalized mCE"; it is not mCE. Raises `UserError` if a cell is missing.
    """
    return _mean(severity_means(errors, families, severities, "The mean corruption error"))


def corruption_errors(
    errors: Mapping[Cell, Error], denominators: Mapping[Cell, float], families: Families, severities: Sequence[int]
) -> dict[str, Error]:
    """CE of each corruption: 100 × (sum of errors over the severities) / (the same sum of the denominator model).

    Corruptions of no family are ignored. Raises `UserError` if a cell is missing on either side, or if the denominator
    model makes no error at all under a corruption.
    """
    ours = severity_means(errors, families, severities, "mCE")
    theirs = severity_means(denominators, families, severities, "mCE's denominator")
    _refuse_undefined("CE", "makes no error", [name for name, error in theirs.items() if error <= 0])
    return {name: 100 * ours[name] / theirs[name] for name in ours}


def mce(
    errors: Mapping[Cell, Error], denominators: Mapping[Cell, float], families: Families, severities: Sequence[int]
) -> Error:
    """Mean of the CE, in percent of the denominator model. Raises as `corruption_errors` does."""
    return _mean(corruption_errors(errors, denominators, families, severities))


def relative_corruption_errors(
    errors: Mapping[Cell, Error],
    clean_error: Error,
    denominators: Mapping[Cell, float],
    clean_denominator: float,
    families: Families,
    severities: Sequence[int],
) -> dict[str, Error]:
    """Relative CE of each corruption: what it adds to the clean error, in percent of what it adds for the denominator
    model: 100 × (mean over severities - clean error) / (the same difference of the denominator model).

    Negative if the corruption helps. Raises `UserError` as `corruption_errors` does, and if a corruption adds nothing
    to the denominator model's error: the ratio then says nothing, or has the wrong sign.
    """
    ours = severity_means(errors, families, severities, "Relative mCE")
    theirs = severity_means(denominators, families, severities, "Relative mCE's denominator")
    added = {name: error - clean_denominator for name, error in theirs.items()}
    _refuse_undefined("Relative CE", "loses nothing", [name for name, more in added.items() if more <= 0])
    return {name: 100 * (ours[name] - clean_error) / added[name] for name in ours}


def relative_mce(
    errors: Mapping[Cell, Error],
    clean_error: Error,
    denominators: Mapping[Cell, float],
    clean_denominator: float,
    families: Families,
    severities: Sequence[int],
) -> Error:
    """Mean of the relative CE, in percent. Raises as `relative_corruption_errors` does."""
    parts = relative_corruption_errors(errors, clean_error, denominators, clean_denominator, families, severities)
    return _mean(parts)


def family_means(per_corruption: Mapping[str, Error], families: Families) -> dict[str, Error]:
    """Mean over the corruptions of each family, of CE or of anything else given for each of them."""
    return {family: _mean({name: per_corruption[name] for name in names}) for family, names in families.items()}


def severity_means(
    errors: Mapping[Cell, Error], families: Families, severities: Sequence[int], quantity: str = "The mean error"
) -> dict[str, Error]:
    """Mean over the severities for each corruption of `families`.

    Raises `UserError` naming every cell that is missing for the `quantity`. NaN (no sample) is missing too.
    """
    names = [name for family in families.values() for name in family]
    missing = [
        (name, severity)
        for name in names
        for severity in severities
        if (name, severity) not in errors or bool(np.isnan(errors[name, severity]).any())
    ]
    if missing:
        raise UserError(
            f"{quantity} needs {len(names)} corruptions at severities {', '.join(map(str, severities))}; "
            f"missing: {_listed(missing, severities)}.",
            "Run the whole suite without a failed cell, or read the error of each corruption instead.",
        )
    return {name: sum(errors[name, severity] for severity in severities) / len(severities) for name in names}


def _mean(values: Mapping[str, Error]) -> Error:
    mean: Error = np.mean(np.stack(list(values.values())), axis=0)
    return mean


def _listed(cells: Iterable[Cell], severities: Sequence[int]) -> str:
    found: dict[str, list[int]] = {}
    for name, severity in cells:
        found.setdefault(name, []).append(severity)
    return ", ".join(
        f"{name} (all)" if len(which) == len(severities) else f"{name} {' '.join(map(str, which))}"
        for name, which in found.items()
    )


def _refuse_undefined(quantity: str, why: str, corruptions: list[str]) -> None:
    if corruptions:
        raise UserError(
            f"{quantity} is undefined: the denominator model {why} under {', '.join(corruptions)}.",
            "Use another denominator model or more images, or read the plain errors instead.",
        )
