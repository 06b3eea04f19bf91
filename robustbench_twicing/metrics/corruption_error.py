"""Corruption error, mCE and their relative forms (Hendrycks and Dietterich 2019, arXiv 1903.12261, section 4).

Errors are fractions in [0, 1], by (corruption, severity). Each may also be an array with one value for each image; the
results then have one value for each image too, and their mean is the result for the data set (see `bootstrap.py`). CE
values are in percent of the denominator model: 100 means as many errors as that model makes (AlexNet on ImageNet-C, see
`catalog/alexnet.py`).
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Bool

from robustbench_twicing.errors import UserError

Error = float | np.ndarray
"""One error, or one for each image (0 or 1)."""

Cell = tuple[str, int]
"""(corruption, severity 1-5)."""

FAMILIES: Mapping[str, tuple[str, ...]] = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}
"""The 15 common corruptions. The four extra ones (speckle_noise, gaussian_blur, spatter, saturate) were made for
validation and never enter a mean here, although the data set's own test script prints its mean over all 19."""

COMMON: tuple[str, ...] = tuple(name for family in FAMILIES.values() for name in family)

SEVERITIES = (1, 2, 3, 4, 5)


def errors_by_cell(outcomes: Bool[np.ndarray, "samples cells"], cells: Sequence[Cell]) -> dict[Cell, np.ndarray]:
    """The error of each image (0. or 1.) by cell, from whether it counts as right under each of `cells`."""
    return {cell: (~outcomes[:, index]).astype(float) for index, cell in enumerate(cells)}


def mean_error(errors: Mapping[Cell, Error]) -> Error:
    """Plain mean error over the 15 × 5 cells, in [0, 1]. Often printed as "unnormalized mCE"; it is not mCE.

    Raises `UserError` if a cell is missing.
    """
    return _mean(_severity_means(errors, "The mean corruption error"))


def corruption_errors(errors: Mapping[Cell, Error], denominators: Mapping[Cell, float]) -> dict[str, Error]:
    """CE of each of the 15: 100 × (sum of errors over the severities) / (the same sum of the denominator model).

    Other corruptions in `errors` are ignored. Raises `UserError` if one of the 15 × 5 cells is missing on either side,
    or if the denominator model makes no error at all under a corruption.
    """
    ours = _severity_means(errors, "mCE")
    theirs = _severity_means(denominators, "mCE's denominator")
    _refuse_undefined("CE", "makes no error", [name for name in COMMON if theirs[name] <= 0])
    return {name: 100 * ours[name] / theirs[name] for name in COMMON}


def mce(errors: Mapping[Cell, Error], denominators: Mapping[Cell, float]) -> Error:
    """Mean of the 15 CE, in percent of the denominator model. Raises as `corruption_errors` does."""
    return _mean(corruption_errors(errors, denominators))


def relative_corruption_errors(
    errors: Mapping[Cell, Error],
    clean_error: Error,
    denominators: Mapping[Cell, float],
    clean_denominator: float,
) -> dict[str, Error]:
    """Relative CE of each of the 15: what a corruption adds to the clean error, in percent of what it adds for the
    denominator model: 100 × (mean over severities - clean error) / (the same difference of the denominator model).

    Negative if the corruption helps. Raises `UserError` as `corruption_errors` does, and if a corruption adds nothing
    to the denominator model's error: the ratio then says nothing, or has the wrong sign.
    """
    ours = _severity_means(errors, "Relative mCE")
    theirs = _severity_means(denominators, "Relative mCE's denominator")
    added = {name: theirs[name] - clean_denominator for name in COMMON}
    _refuse_undefined("Relative CE", "loses nothing", [name for name in COMMON if added[name] <= 0])
    return {name: 100 * (ours[name] - clean_error) / added[name] for name in COMMON}


def relative_mce(
    errors: Mapping[Cell, Error],
    clean_error: Error,
    denominators: Mapping[Cell, float],
    clean_denominator: float,
) -> Error:
    """Mean of the 15 relative CE, in percent. Raises as `relative_corruption_errors` does."""
    return _mean(relative_corruption_errors(errors, clean_error, denominators, clean_denominator))


def family_means(per_corruption: Mapping[str, Error]) -> dict[str, Error]:
    """Mean over the corruptions of each family, of CE or of anything else given for the 15."""
    return {family: _mean({name: per_corruption[name] for name in names}) for family, names in FAMILIES.items()}


def _mean(values: Mapping[str, Error]) -> Error:
    mean: Error = np.mean(np.stack(list(values.values())), axis=0)
    return mean


def _severity_means(errors: Mapping[Cell, Error], quantity: str) -> dict[str, Error]:
    """Mean over the five severities for each of the 15; every missing cell is named. NaN (no sample) is missing too."""
    missing = [
        (name, severity)
        for name in COMMON
        for severity in SEVERITIES
        if (name, severity) not in errors or bool(np.isnan(errors[name, severity]).any())
    ]
    if missing:
        raise UserError(
            f"{quantity} needs the 15 common corruptions at severities 1 to 5; missing: {_listed(missing)}.",
            "Run the whole suite without a failed cell, or read the error of each corruption instead.",
        )
    return {name: sum(errors[name, severity] for severity in SEVERITIES) / len(SEVERITIES) for name in COMMON}


def _listed(cells: Iterable[Cell]) -> str:
    severities: dict[str, list[int]] = {}
    for name, severity in cells:
        severities.setdefault(name, []).append(severity)
    return ", ".join(
        f"{name} (all)" if len(which) == len(SEVERITIES) else f"{name} {' '.join(map(str, which))}"
        for name, which in severities.items()
    )


def _refuse_undefined(quantity: str, why: str, corruptions: list[str]) -> None:
    if corruptions:
        raise UserError(
            f"{quantity} is undefined: the denominator model {why} under {', '.join(corruptions)}.",
            "Use another denominator model or more images, or read the plain errors instead.",
        )
