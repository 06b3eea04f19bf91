"""Published accuracies: figures from elsewhere that a model can be checked against. No torch.

results/published/README.md says where each file is from and what its columns hold.
"""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from robustbench_twicing.catalog.locate import definitions
from robustbench_twicing.errors import UserError, unknown_name
from robustbench_twicing.spec.threats import CleanThreat, ShiftThreat


class PublishedSet(NamedTuple):
    """What a published accuracy was measured on."""

    threat: CleanThreat | ShiftThreat
    """How this tool measures the same."""
    reads: str
    """The data set whose folder is needed."""
    images: int
    """How many the accuracy is a fraction of."""


SETS: Mapping[str, PublishedSet] = {
    "imagenet-val": PublishedSet(CleanThreat(), "imagenet", 50_000),
    # Those of the 50,000 that have a label at all (Beyer et al. 2020, arXiv 2006.07159).
    "imagenet-real": PublishedSet(ShiftThreat(suite="imagenet-real"), "imagenet-real", 46_837),
    "imagenet-v2": PublishedSet(ShiftThreat(suite="imagenet-v2"), "imagenet-v2", 10_000),
    "imagenet-sketch": PublishedSet(ShiftThreat(suite="imagenet-sketch"), "imagenet-sketch", 50_889),
    "imagenet-a-clean": PublishedSet(CleanThreat(classes_of="imagenet-a"), "imagenet", 10_000),
    "imagenet-a": PublishedSet(ShiftThreat(suite="imagenet-a"), "imagenet-a", 7_500),
    "imagenet-r-clean": PublishedSet(CleanThreat(classes_of="imagenet-r"), "imagenet", 10_000),
    "imagenet-r": PublishedSet(ShiftThreat(suite="imagenet-r"), "imagenet-r", 30_000),
}
"""By the name that a table of published accuracies has for it."""


class Figure(NamedTuple):
    """One published accuracy and how its images were prepared."""

    top1: float
    """In percent."""
    img_size: int
    crop_pct: float
    interpolation: str


def published(model: str, path: Path | None = None) -> dict[str, list[Figure]]:
    """The figures of a model by data set, several where it was measured at several image sizes.

    `path` is a table of the user's own with the same columns; left out, timm's results. Raises `UserError` for a model,
    with the nearest names, or a data set that is not known, and for a table that is none.
    """
    table = _read(path or definitions("results/published") / "timm.csv")
    if model not in table:
        error = unknown_name("published model", model, table)
        raise UserError(error.message, f"Name the one to compare with: --as NAME. {error.hint}")
    return table[model]


def _read(path: Path) -> dict[str, dict[str, list[Figure]]]:
    table: dict[str, dict[str, list[Figure]]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for number, row in enumerate(csv.DictReader(file), start=2):
                if row.get("dataset") not in SETS:
                    raise UserError(f"{path}, line {number}: unknown data set {row.get('dataset')!r}.", _HOW)
                figure = Figure(
                    float(row["top1"]), int(row["img_size"]), float(row["crop_pct"]), str(row["interpolation"])
                )
                table.setdefault(row["model"], {}).setdefault(row["dataset"], []).append(figure)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.", "Check the path.") from None
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise UserError(f"{path} is no table of published accuracies: {error!r}.", _HOW) from None
    return table


_HOW = f"Columns: model, dataset, {', '.join(Figure._fields)}. Data sets: {', '.join(SETS)}."
