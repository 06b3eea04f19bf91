"""Drawings of runs beside their tables: calibration of clean images, and each family of corruptions by severity."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from robustbench_twicing.metrics.intervals import mean_interval, wilson_interval
from robustbench_twicing.report.page import Curves, Graph
from robustbench_twicing.report.run import run_names
from robustbench_twicing.results.cells import answered, same_samples
from robustbench_twicing.results.run import Run
from robustbench_twicing.results.side import CLEAN

_TENTHS, _FEWEST, _FEWEST_TENTHS = 10, 10, 3
"""Of confidence; answers that a tenth must hold of every model to be drawn; and such tenths, for a drawing."""


def calibration_curves(runs: Sequence[Run]) -> Iterator[Curves]:
    """Accuracy of clean images over the confidence of the answers, of all models in one; nothing where too few vary."""
    counted: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name, rows in _of_each(runs, CLEAN):
        confidence, right = rows["confidence"].to_numpy(), rows["correct"].to_numpy(dtype=float)
        if np.isfinite(confidence).all():
            tenth = np.minimum((confidence * _TENTHS).astype(int), _TENTHS - 1)
            counts = (np.bincount(tenth, weights, minlength=_TENTHS) for weights in (None, right))
            counted[name] = (next(counts), next(counts))
    if not counted:
        return
    drawn = np.flatnonzero(np.min([held for held, _ in counted.values()], axis=0) >= _FEWEST)
    if len(drawn) < _FEWEST_TENTHS:
        return
    x = tuple((float(tenth) + 0.5) / _TENTHS for tenth in drawn)
    graphs = [Graph("calibrated", x, x, x)]
    for name, (held, right) in counted.items():
        ends = [wilson_interval(round(right[tenth]), int(held[tenth])) for tenth in drawn]
        values = tuple(float(right[tenth] / held[tenth]) for tenth in drawn)
        graphs.append(Graph(name, values, *(tuple(end[side] for end in ends) for side in (0, 1))))
    labels = tuple(f"{100 * middle:.0f}" for middle in x)
    title = "Calibration on clean images, by tenths of confidence"
    yield Curves("calibration", title, "confidence in %", x, labels, tuple(graphs))


def family_curves(runs: Sequence[Run]) -> Iterator[Curves]:
    """Mean accuracy over each family of corruptions by severity, a small drawing each; of images that all have."""
    suites = {name: suite.spec for run in runs for name, suite in run.manifest.suites.items()}
    for suite, spec in suites.items():
        for family, names in {**spec.families, **spec.extra_families}.items():
            found: dict[str, dict[int, np.ndarray]] = {}
            for severity in spec.severities:
                for name, values in _by_image(runs, [f"{suite}:{corruption}-{severity}" for corruption in names]):
                    found.setdefault(name, {})[severity] = values
            severities = [s for s in spec.severities if found and all(s in values for values in found.values())]
            if len(severities) > 1:
                graphs = tuple(_graph(name, [values[s] for s in severities]) for name, values in found.items())
                x = tuple(map(float, severities))
                labels = tuple(map(str, severities))
                yield Curves(f"family {suite} {family}", f"{suite}, {family}", "severity", x, labels, graphs)


def _by_image(runs: Sequence[Run], threats: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Of each model the share of these threats under which it is right, image by image."""
    cells: dict[str, list[pd.DataFrame]] = {}
    for threat in threats:
        for name, rows in _of_each(runs, threat):
            cells.setdefault(name, []).append(rows)
    for name, frames in cells.items():
        if len(frames) == len(threats) and same_samples(frames) and len(frames[0]) > 1:
            yield name, np.mean([rows["correct"].to_numpy(dtype=float) for rows in frames], axis=0)


def _graph(name: str, values: Sequence[np.ndarray]) -> Graph:
    ends = [mean_interval(one, (0.0, 1.0)) for one in values]
    return Graph(
        name, tuple(float(one.mean()) for one in values), *(tuple(end[side] for end in ends) for side in (0, 1))
    )


def _of_each(runs: Sequence[Run], threat: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """What each model answered under a threat, by its name in tables."""
    for run, called in zip(runs, run_names(runs), strict=True):
        cells: Mapping[tuple[str, str], pd.DataFrame] = run.cells
        for model in run.models:
            if (model, threat) in cells and len(rows := answered(cells[model, threat])):
                yield f"{model} in {called}" if called else model, rows
