"""The figures over whole suites, computed from the records. No torch."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from robustbench_twicing.errors import UserError
from robustbench_twicing.metrics.corruption_error import Cell, family_means, severity_means
from robustbench_twicing.metrics.table import columns, computed, of
from robustbench_twicing.results.cells import Cells, answered, image_numbers, same_samples, two_at_once
from robustbench_twicing.results.side import CLEAN
from robustbench_twicing.results.summary import SummaryColumn, by_confidence, ends, sample_inputs, with_plugged
from robustbench_twicing.spec.suite import Denominator, SuiteDefinition, SuiteSpec

SUITE_COLUMNS: tuple[SummaryColumn, ...] = (
    SummaryColumn("model", "the model's name in the plan"),
    SummaryColumn("suite", "the suite"),
    SummaryColumn("n", "images that were answered: the fewest under any of its threats"),
    SummaryColumn("images", "images of the whole suite, for each of its threats; n if nobody says how many there are"),
    *(SummaryColumn(name, holds) for metric in of("suite") for name, holds in columns(metric).items()),
    SummaryColumn("family_errors", "mean top-1 error of each family of corruptions, by name; extra families too"),
    SummaryColumn("denominator", "whose errors mCE divides by: AlexNet, a file's, or a model of the same run"),
    SummaryColumn("note", "why a figure is missing"),
)


def summarize_suites(cells: Cells, suites: Mapping[str, SuiteDefinition], lacks: Sequence[str] = ()) -> pd.DataFrame:
    """One row per model and suite of the cells, with the columns of `SUITE_COLUMNS`; a figure without data is nan.

    `suites` are the run's own, by the name that the records give them; whose errors mCE divides by stands there.
    What the records of a run lack has no figures.
    """
    ok: dict[str, dict[str, pd.DataFrame]] = {}
    for (model, threat), rows in cells.items():
        if len(kept := answered(rows)):
            ok.setdefault(model, {})[threat] = kept
    pairs = dict.fromkeys((model, _suite(rows)) for model, mine in ok.items() for rows in mine.values())
    wanted = [(model, suite) for model, suite in pairs if suite]
    made = two_at_once(lambda pair: _row(ok, *pair, suites[pair[1]], lacks), wanted)
    table = pd.DataFrame(made, columns=with_plugged(SUITE_COLUMNS, "suite"))
    return table.astype({name: float for metric in of("suite") for name in columns(metric)})


_Mine = Mapping[str, pd.DataFrame]
"""The answered records of a model, by threat."""


def _suite(rows: pd.DataFrame) -> str:
    return str(rows["suite"].iloc[0])


def _on(mine: _Mine, suite: str) -> list[pd.DataFrame]:
    return [rows for rows in mine.values() if _suite(rows) == suite]


def _row(
    ok: Mapping[str, _Mine], model: str, suite: str, definition: SuiteDefinition, lacks: Sequence[str]
) -> dict[str, Any]:
    mine = ok[model]
    here = _on(mine, suite)
    inputs, note = _inputs(ok, mine, here, definition)
    inputs = {name: one for name, one in inputs.items() if name not in lacks}
    by_image = _by_image(mine, here, definition) if definition.spec.families else {}
    images = image_numbers(here) if definition.spec.families else None
    n = min(map(len, here))
    row: dict[str, Any] = {"model": model, "suite": suite, "n": n, "images": definition.spec.images or n}
    row |= {"denominator": "", "family_errors": {}}
    if definition.spec.families:
        row["denominator"] = definition.denominator.name if definition.denominator else ""
        row["family_errors"] = family_errors(inputs["errors"], definition.spec)
    inputs, images = by_confidence(inputs, images)
    for metric in of("suite"):
        try:
            row[metric.name] = computed(metric, inputs)
            row |= ends(metric, inputs | by_image, images)
        except UserError as missing:
            note = note or missing.message
    return row | {"note": note}


def _inputs(
    ok: Mapping[str, _Mine], mine: _Mine, here: Sequence[pd.DataFrame], definition: SuiteDefinition
) -> tuple[dict[str, Any], str]:
    """What a metric can need of one model (`mine`) on one suite (`here`), and why something of that is missing."""
    spec, outliers = definition.spec, definition.spec.labels == "outlier"
    inputs: dict[str, Any] = sample_inputs(here, outliers, "suite")
    if outliers:
        clean = mine.get(f"clean[{_suite(here[0])}]")
        if clean is None:
            return inputs, "no clean run to tell the outliers from"
        return inputs | outlier_inputs(here[0], clean), ""
    if not spec.families:
        return inputs, ""
    inputs |= {"errors": _errors(here), "families": spec.families, "severities": spec.severities}
    if CLEAN in mine:
        inputs["clean_error"] = _error(mine[CLEAN])
    denominator = definition.denominator
    if denominator is None:
        return inputs, ""
    if not denominator.measured_here:
        return inputs | denominator_inputs(denominator), ""
    theirs = ok.get(denominator.name)
    if theirs is None:
        return inputs, f"no mCE: its denominator {denominator.name!r} is no model of this run"
    inputs["denominators"] = _errors(_on(theirs, _suite(here[0])))
    if CLEAN in theirs:
        inputs["clean_denominator"] = _error(theirs[CLEAN])
    return inputs, ""


def _by_image(mine: _Mine, here: Sequence[pd.DataFrame], definition: SuiteDefinition) -> dict[str, Any]:
    """The errors (0. or 1.) of each image that was answered in all cells and in the clean run, if there is one.

    Empty where the suite's mean lacks a cell, and for a denominator that is a model of the run: what it makes of errors
    is known as well as the errors themselves.
    """
    cells = {_cell(rows): rows for rows in here}
    wanted = definition.spec.parts(definition.spec.common)
    if not all(cell in cells for cell in wanted):
        return {}
    frames: dict[Any, pd.DataFrame] = {cell: cells[cell] for cell in wanted}
    if CLEAN in mine:
        frames[CLEAN] = mine[CLEAN]
    if same_samples(frames.values()):
        errors = {key: 1.0 - rows["correct"].to_numpy() for key, rows in frames.items()}
    else:
        right = {key: pd.Series(rows["correct"].to_numpy(), rows["sample_id"]) for key, rows in frames.items()}
        joined = 1.0 - pd.concat(right, axis=1, join="inner").astype(float)
        errors = {key: joined[key].to_numpy() for key in frames}
    found: dict[str, Any] = {"errors": {cell: errors[cell] for cell in wanted}}
    if CLEAN in mine:
        found["clean_error"] = errors[CLEAN]
    if definition.denominator is not None and definition.denominator.measured_here:
        found["denominators"] = None
    return found


def outlier_inputs(outliers: pd.DataFrame, clean: pd.DataFrame) -> dict[str, np.ndarray]:
    """The scores of outliers and of clean images: minus the confidence."""
    return {"outlier_scores": -outliers["confidence"].to_numpy(), "inlier_scores": -clean["confidence"].to_numpy()}


def denominator_inputs(denominator: Denominator) -> dict[str, Any]:
    """The errors of a denominator that was measured once and for all."""
    known: dict[str, Any] = {"denominators": denominator.by_cell}
    return known if denominator.clean is None else known | {"clean_denominator": denominator.clean}


def family_errors(errors: Mapping[Cell, float], spec: SuiteSpec) -> dict[str, float]:
    """Mean error of each family that was run as a whole; of extra ones too, `NAME (extra)` where a name is taken."""
    every = dict(spec.families)
    for name, corruptions in spec.extra_families.items():
        every[f"{name} (extra)" if name in every else name] = corruptions
    found: dict[str, Any] = {}
    for name, corruptions in every.items():
        family = {name: corruptions}
        try:
            found |= family_means(severity_means(errors, family, spec.severities), family)
        except UserError:  # not all of it was run
            continue
    return {name: float(value) for name, value in found.items()}


def _cell(rows: pd.DataFrame) -> Cell:
    return str(rows["corruption"].iloc[0]), int(rows["severity"].iloc[0])


def _error(rows: pd.DataFrame) -> float:
    return 1 - float(rows["correct"].mean())


def _errors(cells: Sequence[pd.DataFrame]) -> dict[Cell, float]:
    return {_cell(rows): _error(rows) for rows in cells}
