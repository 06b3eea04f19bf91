"""Two models over whole suites: every figure of `metrics.table` that has a paired interval. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from robustbench_twicing.errors import UserError
from robustbench_twicing.metrics.corruption_error import errors_by_cell
from robustbench_twicing.metrics.intervals import Estimate, mean_interval
from robustbench_twicing.metrics.jackknife import Answers, jackknife_difference
from robustbench_twicing.metrics.paired import SuitePairs, match_suite
from robustbench_twicing.metrics.table import Metric, computed, of
from robustbench_twicing.metrics.table_intervals import reach
from robustbench_twicing.results.side import CLEAN, Side, matched
from robustbench_twicing.results.suite_figures import denominator_inputs, outlier_inputs


@dataclass(frozen=True, eq=False)
class SuiteFigure:
    """One figure over a whole suite, for two models on the same samples."""

    baseline: str
    candidate: str
    suite: str
    figure: str
    """Its title in `metrics.table.METRICS`, such as `mCE`."""
    unit: str
    scale: int
    """What the values below are multiplied with for that unit."""
    better: Literal["higher", "lower", ""]
    n: int
    images: int
    """Of the whole suite; n if nobody says how many there are."""
    baseline_value: float
    candidate_value: float
    difference: Estimate
    """Candidate minus baseline, paired, with its interval at level 1 - alpha."""
    denominator: str
    """Whose errors the suite's mCE divides by; empty if it has none."""


class _Inputs(NamedTuple):
    """What metrics can need of both models on one suite, the samples being the same."""

    baseline: Mapping[str, Any]
    candidate: Mapping[str, Any]
    n: int


def compare_suites(baseline: Side, candidate: Side, alpha: float = 0.05) -> list[SuiteFigure]:
    """Every figure with a paired interval, of every suite that both were run on as a whole."""
    left, right = baseline.cells, candidate.cells
    names = [records["suite"].iloc[0] for threat, records in left.items() if threat in right]
    found = []
    for suite in dict.fromkeys(name for name in names if name):
        spec, denominator = baseline.suites[suite].spec, baseline.suites[suite].denominator
        inputs = None
        if spec.families:
            inputs = _of_corruptions(suite, baseline, candidate)
        elif spec.labels == "outlier":
            inputs = _of_outliers(suite, left, right)
        if inputs is None:
            continue
        for metric in of("suite"):
            figure = _figure(metric, inputs, alpha)
            if figure is not None:
                values, difference = figure
                found.append(
                    SuiteFigure(
                        baseline=baseline.name,
                        candidate=candidate.name,
                        suite=suite,
                        figure=metric.title,
                        unit=metric.unit,
                        scale=metric.scale,
                        better=metric.better,
                        n=inputs.n,
                        images=spec.images or inputs.n,
                        baseline_value=values[0],
                        candidate_value=values[1],
                        difference=difference,
                        denominator=denominator.name if denominator else "",
                    )
                )
    return found


def _figure(metric: Metric, inputs: _Inputs, alpha: float) -> tuple[tuple[float, float], Estimate] | None:
    """Both models' values and the difference; None for a figure that is not compared, or not there."""
    if metric.interval not in ("by image", "jackknife") or any(name not in inputs.baseline for name in metric.needs):
        return None
    try:
        one, other = (computed(metric, side) for side in (inputs.baseline, inputs.candidate))
    except UserError:  # undefined; the run's own report says why
        return None
    if one is None or other is None:
        return None
    if metric.interval == "by image":
        one, other = (np.asarray(values, dtype=float) for values in (one, other))
        least, most = reach(metric, inputs.baseline)
        interval = mean_interval(other - one, (least - most, most - least), 1 - alpha)
        return (float(one.mean()), float(other.mean())), Estimate(float((other - one).mean()), interval)
    sides = ({name: Answers([side[name]]) for name in metric.needs} for side in (inputs.baseline, inputs.candidate))
    difference = jackknife_difference(metric.compute, *sides, level=1 - alpha)
    return ((one, other), difference) if difference else None


def _of_corruptions(suite: str, baseline: Side, candidate: Side) -> _Inputs | None:
    """None unless both answered the same two images or more in every cell that the suite's mean contains.

    mCE only by a denominator outside the run, the same on both sides: what a model of the run makes of errors is known
    as well as the errors themselves.
    """
    left, right = baseline.cells, candidate.cells
    spec, denominator = baseline.suites[suite].spec, baseline.suites[suite].denominator
    cells = {}
    for threat, records in left.items():
        first = records.iloc[0]
        if first["kind"] == "corruption" and first["suite"] == suite and threat in right:
            cells[first["corruption"], int(first["severity"])] = threat
    wanted = spec.parts(spec.common)
    if not all(cell in cells for cell in wanted):
        return None
    names = [cells[cell] for cell in wanted]
    both = match_suite(*({name: side[name] for name in names} for side in (left, right)), draws=True)
    if len(both.labels) < 2:
        return None
    known: dict[str, Any] = {"families": spec.families, "severities": spec.severities}
    same = denominator == candidate.suites[suite].denominator
    if denominator is not None and same and not denominator.measured_here:
        known |= denominator_inputs(denominator)
    sides = [known | {"errors": errors_by_cell(side, wanted)} for side in (both.baseline, both.candidate)]
    clean = _clean_errors(left, right, both)
    if clean is not None:
        sides = [side | {"clean_error": errors} for side, errors in zip(sides, clean, strict=True)]
    return _Inputs(sides[0], sides[1], len(both.labels))


def _clean_errors(
    left: Mapping[str, pd.DataFrame], right: Mapping[str, pd.DataFrame], both: SuitePairs
) -> list[np.ndarray] | None:
    """Both models' clean errors (0. or 1.) on the suite's images; None unless both answered every one of them."""
    if CLEAN not in left or CLEAN not in right:
        return None
    clean = matched(CLEAN, left[CLEAN], right[CLEAN])
    rows = pd.Index(clean.sample_ids).get_indexer(pd.Index(both.sample_ids))
    if (rows < 0).any():
        return None
    return [(~side[rows]).astype(float) for side in (clean.baseline, clean.candidate)]


def _of_outliers(suite: str, left: Mapping[str, pd.DataFrame], right: Mapping[str, pd.DataFrame]) -> _Inputs | None:
    """None unless both were run on clean images of the suite's classes, too."""
    clean = f"clean[{suite}]"
    if any(threat not in side for side in (left, right) for threat in (suite, clean)):
        return None
    pairs = {threat: matched(threat, left[threat], right[threat]) for threat in (suite, clean)}
    if any(len(found.labels) < 2 for found in pairs.values()):
        return None
    sides = []
    for side in (left, right):
        answered = [side[name].set_index("sample_id").loc[found.sample_ids] for name, found in pairs.items()]
        sides.append(outlier_inputs(*answered))
    n = sum(len(found.labels) for found in pairs.values())
    return _Inputs(sides[0], sides[1], n)
