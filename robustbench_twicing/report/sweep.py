"""The page of `sweep`: accuracy by which blocks have the method, as a heat map."""

from collections.abc import Sequence

from robustbench_twicing.inside.swept import Sweep
from robustbench_twicing.report.page import Column, Into, Line, Page, Table


def sweep_page(found: Sequence[Sweep]) -> Page:
    """A table for each model, shaded by accuracy."""
    parts: list[Line | Table] = []
    for one in found:
        parts.append(Line(f"{one.model}, named with {one.attention} attention; {one.n} images; {one.threat}.", "note"))
        parts.append(_table(one))
    parts.append(
        Line(
            "Nothing is trained here: a setting that is not marked is drop-in, the weights were trained with another "
            "attention. What a method is worth when trained needs `train` and arms of seeds.",
            "warning",
        )
    )
    return Page(
        "Sweep", tuple(parts), facts=[{**vars(one), "cells": [cell._asdict() for cell in one.cells]} for one in found]
    )


def _table(one: Sweep) -> Table:
    columns = (
        Column("way", "way"),
        Column("name", "method in"),
        Column("trained", "trained so"),
        Column("clean", "clean %", "percent", shaded=True),
        Column("clean_interval", "95 % interval", "percent interval", Into("clean", "\n(", ")")),
        Column("robust", "attacked %", "percent", shaded=True),
        Column("robust_interval", "95 % interval of attacked", "percent interval", Into("robust", "\n(", ")")),
    )
    rows = tuple(
        {"model": one.model, "threat": one.threat, **cell._asdict(), "trained": "yes" if cell.as_trained else ""}
        for cell in one.cells
    )
    return Table(f"sweep-{one.model}", f"{one.model}: accuracy under {one.threat}", columns, rows, groups=("way",))
