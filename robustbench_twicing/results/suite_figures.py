"""The figures over whole suites, computed from the records. No torch."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from robustbench_twicing.errors import UserError
from robustbench_twicing.metrics.corruption_error import Cell, family_means, severity_means
from robustbench_twicing.metrics.table import columns, computed, of
from robustbench_twicing.results.side import CLEAN
from robustbench_twicing.results.summary import SummaryColumn, ends, sample_inputs, with_plugged
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


def summarize_suites(records: pd.DataFrame, suites: Mapping[str, SuiteDefinition]) -> pd.DataFrame:
    """One row per model and suite of the records, with the columns of `SUITE_COLUMNS`; a figure without data is nan.

    `suites` are the run's own, by the name that the records give them; whose errors mCE divides by stands there.
    """
    ok = records[records["status"] == "ok"]
    rows = [_row(ok, str(model), str(suite), suites[suite]) for model, suite in _pairs(ok)]
    table = pd.DataFrame(rows, columns=with_plugged(SUITE_COLUMNS, "suite"))
    return table.astype({name: float for metric in of("suite") for name in columns(metric)})


def _pairs(records: pd.DataFrame) -> list[tuple[str, str]]:
    named = records[records["suite"] != ""]
    return [(model, suite) for model, suite in named[["model", "suite"]].drop_duplicates().itertuples(index=False)]


def _row(ok: pd.DataFrame, model: str, suite: str, definition: SuiteDefinition) -> dict[str, Any]:
    mine = ok[ok["model"] == model]
    here = mine[mine["suite"] == suite]
    inputs, note = _inputs(ok, mine, here, definition)
    by_image = _by_image(mine, here, definition) if definition.spec.families else {}
    images = pd.factorize(here["sample_id"])[0] if definition.spec.families else None
    n = int(here["threat"].value_counts().min())
    row: dict[str, Any] = {"model": model, "suite": suite, "n": n, "images": definition.spec.images or n}
    row |= {"denominator": "", "family_errors": {}}
    if definition.spec.families:
        row["denominator"] = definition.denominator.name if definition.denominator else ""
        row["family_errors"] = family_errors(inputs["errors"], definition.spec)
    for metric in of("suite"):
        try:
            row[metric.name] = computed(metric, inputs)
            row |= ends(metric, inputs | by_image, images)
        except UserError as missing:
            note = note or missing.message
    return row | {"note": note}


def _inputs(
    ok: pd.DataFrame, mine: pd.DataFrame, here: pd.DataFrame, definition: SuiteDefinition
) -> tuple[dict[str, Any], str]:
    """What a metric can need of one model (`mine`) on one suite (`here`), and why something of that is missing."""
    spec, outliers = definition.spec, definition.spec.labels == "outlier"
    inputs: dict[str, Any] = sample_inputs(here, outliers)
    if outliers:
        clean = mine[mine["threat"] == f"clean[{here['suite'].iloc[0]}]"]
        if clean.empty:
            return inputs, "no clean run to tell the outliers from"
        return inputs | outlier_inputs(here, clean), ""
    if not spec.families:
        return inputs, ""
    inputs |= {"errors": _errors(here), "families": spec.families, "severities": spec.severities}
    clean = mine[mine["threat"] == "clean"]
    if not clean.empty:
        inputs["clean_error"] = _clean_error(clean)
    denominator = definition.denominator
    if denominator is None:
        return inputs, ""
    if not denominator.measured_here:
        return inputs | denominator_inputs(denominator), ""
    theirs = ok[ok["model"] == denominator.name]
    if theirs.empty:
        return inputs, f"no mCE: its denominator {denominator.name!r} is no model of this run"
    inputs["denominators"] = _errors(theirs[theirs["suite"] == here["suite"].iloc[0]])
    clean = theirs[theirs["threat"] == "clean"]
    if not clean.empty:
        inputs["clean_denominator"] = _clean_error(clean)
    return inputs, ""


def _by_image(mine: pd.DataFrame, here: pd.DataFrame, definition: SuiteDefinition) -> dict[str, Any]:
    """The errors (0. or 1.) of each image that was answered in all cells and in the clean run, if there is one.

    Empty where the suite's mean lacks a cell, and for a denominator that is a model of the run: what it makes of errors
    is known as well as the errors themselves.
    """
    cells = {
        (str(group["corruption"].iloc[0]), int(group["severity"].iloc[0])): group
        for _, group in here.groupby(["corruption", "severity"], sort=False)
    }
    wanted = definition.spec.parts(definition.spec.common)
    if not all(cell in cells for cell in wanted):
        return {}
    frames: dict[Any, pd.DataFrame] = {cell: cells[cell] for cell in wanted}
    clean = mine[mine["threat"] == "clean"]
    if not clean.empty:
        frames[CLEAN] = clean
    right = {key: pd.Series(one["correct"].to_numpy(), one["sample_id"]) for key, one in frames.items()}
    # Mostly all are about the same samples in the same order; then this is an alignment for nothing.
    errors = 1.0 - pd.concat(right, axis=1, join="inner").astype(float)
    found: dict[str, Any] = {"errors": {cell: errors[cell].to_numpy() for cell in wanted}}
    if not clean.empty:
        found["clean_error"] = errors[CLEAN].to_numpy()
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


def _clean_error(clean: pd.DataFrame) -> float:
    return 1 - float(clean["correct"].mean())


def _errors(records: pd.DataFrame) -> dict[Cell, float]:
    right = records.groupby(["corruption", "severity"], sort=False)["correct"].mean()
    corruptions, severities = (right.index.get_level_values(level) for level in ("corruption", "severity"))
    return {
        (str(name), int(severity)): 1 - float(value)
        for name, severity, value in zip(corruptions, severities, right, strict=True)
    }
