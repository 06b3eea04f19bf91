"""Mechanisms over whole curves and suites: figures that have a value for every image and seed. No torch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from robustbench_twicing.errors import UserError
from robustbench_twicing.metrics.accuracy import curve_area
from robustbench_twicing.metrics.arms import ArmsTest, Images, compare_arms
from robustbench_twicing.metrics.corruption_error import errors_by_cell
from robustbench_twicing.metrics.table import Metric, computed, of
from robustbench_twicing.results.arms import Arm, Match, matched_arms, shared_threats
from robustbench_twicing.results.eps_curves import eps_curves
from robustbench_twicing.results.side import CLEAN
from robustbench_twicing.results.suite_figures import denominator_inputs
from robustbench_twicing.spec.suite import SuiteDefinition


@dataclass(frozen=True, eq=False)
class ArmFigure:
    """Two arms by one figure over several threats."""

    baseline: str
    candidate: str
    over: str
    """The attack and norm of a curve, or the suite."""
    figure: str
    """Such as `area` or `mCE`."""
    unit: str
    scale: int
    """What the values are multiplied with for that unit."""
    better: Literal["higher", "lower", ""]
    n: int
    """Images that every model answered under every threat."""
    baseline_values: Mapping[str, float]
    """Of each seed's model."""
    candidate_values: Mapping[str, float]
    outcome: ArmsTest
    """Candidate minus baseline; its p is that of a single test."""


def compare_figures(
    arms: Sequence[Arm],
    suites: Mapping[str, SuiteDefinition],
    *,
    images: Images = "random",
    alpha: float = 0.05,
    match: Match = matched_arms,
) -> Iterator[ArmFigure]:
    """The areas of all curves over eps, and of all suites the figures by image, of the first arm and each other."""
    baseline, *others = arms
    for other in others:
        for over in _curves(baseline, other, match), _suites(baseline, other, suites, match):
            for name, about, values in over:
                test = compare_arms(*values, images=images, alpha=alpha)
                one, two = (arm.means(side) for arm, side in zip((baseline, other), values, strict=True))
                n = values[0].shape[1]
                yield ArmFigure(baseline.name, other.name, name, *about, n, one, two, test)


_About = tuple[str, str, int, Literal["higher", "lower", ""]]
"""A figure's name, unit, scale, and what is better."""
_Values = tuple[np.ndarray, np.ndarray]
"""Of both arms: one value for each seed and image."""


def _curves(baseline: Arm, other: Arm, match: Match) -> Iterator[tuple[str, _About, _Values]]:
    for curve in eps_curves(_shared(baseline, other)):
        eps = np.array([float(size) for size in curve.eps])
        one, two = (curve_area(eps, side.astype(float)) for side in _answers(baseline, other, curve.threats, match))
        if one.shape[1] > 1:
            yield curve.attack, ("area", "%", 100, "higher"), (one, two)


def _suites(
    baseline: Arm, other: Arm, suites: Mapping[str, SuiteDefinition], match: Match
) -> Iterator[tuple[str, _About, _Values]]:
    firsts = _shared(baseline, other)
    for name, definition in suites.items():
        spec = definition.spec
        here = {
            (one["corruption"], int(one["severity"])): threat for threat, one in firsts.items() if one["suite"] == name
        }
        wanted = spec.parts(spec.common)
        if not wanted or not all(cell in here for cell in wanted):
            continue
        clean = [CLEAN] if CLEAN in firsts else []
        sides = _answers(baseline, other, [*(here[cell] for cell in wanted), *clean], match)
        if sides[0].shape[1] < 2:
            continue
        for metric in of("suite"):
            if metric.interval == "by image":
                one, two = ([_by_image(metric, definition, seed) for seed in side] for side in sides)
                if all(values is not None for values in (*one, *two)):
                    about: _About = (metric.title, metric.unit, metric.scale, metric.better)
                    yield name, about, (np.array(one), np.array(two))


def _by_image(metric: Metric, definition: SuiteDefinition, answers: np.ndarray) -> np.ndarray | None:
    """One value for each image, of one model's answers (samples, cells of the suite and perhaps clean)."""
    spec = definition.spec
    wanted = spec.parts(spec.common)
    inputs: dict[str, Any] = {"families": spec.families, "severities": spec.severities}
    inputs["errors"] = errors_by_cell(answers[:, : len(wanted)], wanted)
    if answers.shape[1] > len(wanted):
        inputs["clean_error"] = (~answers[:, -1]).astype(float)
    if definition.denominator is not None and not definition.denominator.measured_here:
        inputs |= denominator_inputs(definition.denominator)
    try:
        found: np.ndarray | None = computed(metric, inputs)
    except UserError:  # undefined; the run's own report says why
        return None
    return found


def _shared(baseline: Arm, other: Arm) -> dict[str, pd.Series]:
    """A record of each threat that every model of both arms was evaluated under."""
    return {threat: next(iter(baseline.cells[threat].values())).iloc[0] for threat in shared_threats(baseline, other)}


def _answers(baseline: Arm, other: Arm, threats: Sequence[str], match: Match) -> _Values:
    """Of both arms: what counts as right, by (seed, sample, threat), for samples answered by all under all threats."""
    pairs = [match(baseline, other, threat) for threat in threats]
    ids = pairs[0].sample_ids
    for one in pairs[1:]:
        if not np.array_equal(ids, one.sample_ids):
            ids = np.intersect1d(ids, one.sample_ids, assume_unique=True)
    rows = [
        slice(None) if np.array_equal(ids, one.sample_ids) else np.searchsorted(one.sample_ids, ids)  # they are sorted
        for one in pairs
    ]
    left, right = (
        np.stack([side[:, kept] for side, kept in zip(sides, rows, strict=True)], axis=2)
        for sides in ([one.baseline for one in pairs], [one.candidate for one in pairs])
    )
    return left, right
