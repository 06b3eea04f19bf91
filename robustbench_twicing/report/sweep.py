"""The page of `sweep`: accuracy by which blocks have the method, as a heat map; trained settings in their own."""

from collections.abc import Sequence
from typing import Any

from robustbench_twicing.inside.swept import Cell, Sweep
from robustbench_twicing.report.page import Column, Into, Line, Page, Table

_DROP_IN = (
    "Nothing is trained in the tables of given weights: a setting that is not marked is drop-in, the weights were "
    "trained with another attention. "
)


def sweep_page(found: Sequence[Sweep]) -> Page:
    """A table for each model, shaded by accuracy, and one for what was trained."""
    parts: list[Line | Table] = []
    for one in found:
        parts.append(Line(f"{one.model}, named with {one.attention} attention; {one.n} images; {one.threat}.", "note"))
        parts.append(_given(one))
        if one.retrained:
            parts.append(_trained(one))
    trained = any(one.retrained for one in found)
    parts.append(Line(_DROP_IN + (_of_trained(found) if trained else _UNTRAINED), "warning"))
    return Page(
        "Sweep",
        tuple(parts),
        facts=[{**vars(one), "cells": _facts(one.cells), "retrained": _facts(one.retrained)} for one in found],
    )


_UNTRAINED = "What a method is worth when trained needs --retrain, or `train` and arms of seeds."


def _of_trained(found: Sequence[Sweep]) -> str:
    seeds = len({cell.seed for one in found for cell in one.retrained})
    return (
        "In the tables of trained settings each row is weights of their own. Intervals are over images: another seed "
        f"trains another network, and {seeds} seed(s) say little of a method. `compare --arm` judges arms of them."
    )


def _facts(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    return [_without_ids(cell) for cell in cells]


def _without_ids(cell: Cell) -> dict[str, Any]:
    """An image's own answers are for --out."""
    return {key: value for key, value in cell._asdict().items() if key not in ("right", "standing")}


_ACCURACIES = (
    Column("clean", "clean %", "percent", shaded=True),
    Column("clean_interval", "95 % interval", "percent interval", Into("clean", "\n(", ")")),
    Column("robust", "attacked %", "percent", shaded=True),
    Column("robust_interval", "95 % interval of attacked", "percent interval", Into("robust", "\n(", ")")),
)


def _given(one: Sweep) -> Table:
    columns = (Column("way", "way"), Column("name", "method in"), Column("trained", "trained so"), *_ACCURACIES)
    rows = tuple(
        {**_row(one, cell), "weights": "given", "trained": "yes" if cell.as_trained else ""} for cell in one.cells
    )
    title = f"{one.model}: accuracy of the given weights under {one.threat}"
    return Table(f"sweep-{one.model}", title, columns, rows, groups=("way",))


def _trained(one: Sweep) -> Table:
    columns = (Column("way", "way"), Column("name", "method in"), Column("seed", "seed", "count"), *_ACCURACIES)
    rows = tuple({**_row(one, cell), "weights": "trained so"} for cell in one.retrained)
    title = f"{one.model}: each setting trained by recipe {one.recipe}, accuracy under {one.threat}"
    return Table(f"sweep-{one.model}-trained", title, columns, rows, groups=("way",))


def _row(one: Sweep, cell: Cell) -> dict[str, Any]:
    return {"model": one.model, "threat": one.threat, **_without_ids(cell)}
