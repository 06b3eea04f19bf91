"""The table of metrics: every row can be computed, read and shown."""

import numpy as np
import pytest

from robustbench_twicing.metrics.table import INPUTS, METRICS, computed, of


def test_names_are_unique_and_needs_are_known() -> None:
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    titles = [metric.title for metric in of("suite")]
    assert all(titles)
    assert len(set(titles)) == len(titles)
    assert {name for metric in METRICS for name in metric.needs} == set(INPUTS)


def test_a_metric_whose_needs_are_not_there_is_none() -> None:
    (metric,) = (metric for metric in METRICS if metric.name == "drop")
    right = np.array([True, False])
    assert computed(metric, {"correct_here": right}) is None
    assert computed(metric, {"correct_here": right, "correct_when_clean": np.array([True, True])}) == -0.5


@pytest.mark.parametrize("metric", of("threat"), ids=lambda metric: metric.name)
def test_a_figure_of_a_threat_without_samples_is_no_number_and_no_warning(metric) -> None:
    types = {
        "forwards": int,
        "backwards": int,
        "loss": float,
        "brier": float,
        "confidence": float,
        "linf_distance": float,
        "precision": object,
    }
    inputs = {name: np.array([], dtype=types.get(name, bool)) for name in metric.needs}
    if "same_samples" in inputs:
        inputs["same_samples"] = True
    expected = {"ci_low": 0, "ci_high": 1}.get(metric.name, np.nan)
    assert computed(metric, inputs) == pytest.approx(expected, nan_ok=True)
