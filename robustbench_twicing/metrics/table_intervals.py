"""The interval of any row of `metrics.table`, as the row says that it is found."""

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np

from robustbench_twicing.metrics.accuracy import mean
from robustbench_twicing.metrics.intervals import Interval, mean_interval
from robustbench_twicing.metrics.jackknife import Answers, Images, calibration_estimate, image_count, jackknife
from robustbench_twicing.metrics.table import Metric, computed

_BY_IMAGE = ("errors", "clean_error")
"""Inputs that may have a value for each image."""


def interval(
    metric: Metric, inputs: Mapping[str, Any], images: Images | None = None, level: float = 0.95
) -> Interval | None:
    """The interval of a metric of one model; None if it has none, if its inputs are not all there, or too few.

    By image: `errors` and `clean_error` are arrays with one value (0 or 1) for each image. `images` says which image
    each sample of the answers is of, where an image has several.
    """
    if not metric.interval or any(inputs.get(name) is None for name in metric.needs):
        return None
    needed = [inputs[name] for name in metric.needs]
    if metric.most == np.inf and not np.isfinite(needed[0]).all():
        return None
    if metric.interval == "by image":
        values = np.asarray(computed(metric, inputs), dtype=float)
        return mean_interval(values, reach(metric, inputs), level) if values.size > 1 else None
    if metric.needs[0].endswith("_scores"):  # of two sets
        sets = {name: Answers([scores]) for name, scores in zip(metric.needs, needed, strict=True)}
    else:
        sets = {"samples": Answers(needed, images)}
        if metric.compute is not mean and (needed[0][1:] < needed[0][:-1]).any():
            order = np.argsort(needed[0], kind="stable")  # once: most of the time would go into sorting again
            of = None if images is None else images[order]
            sets = {"samples": Answers([values[order] for values in needed], of)}
    if min(map(image_count, sets.values())) < 2:
        return None
    if metric.interval == "from zero":
        (confidence, correct), of = sets["samples"]
        found = calibration_estimate(metric.compute, confidence, correct, of, level=level)
    else:
        found = jackknife(metric.compute, sets, most=metric.most, level=level)
    return found.interval if found else None


def reach(metric: Metric, inputs: Mapping[str, Any]) -> tuple[float, float]:
    """The least and the largest value that a metric by image can have for an image: all wrong, or all right."""
    varied = [name for name in _BY_IMAGE if name in metric.needs]
    found = []
    for wrong in product((0.0, 1.0), repeat=len(varied)):
        filled = {name: _filled(inputs[name], value) for name, value in zip(varied, wrong, strict=True)}
        found.append(float(np.max(computed(metric, {**inputs, **filled}))))
    return min(found), max(found)


def _filled(errors: Any, value: float) -> Any:
    if isinstance(errors, Mapping):
        return dict.fromkeys(errors, np.full(1, value))
    return np.full(1, value)
