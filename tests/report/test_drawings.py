"""Drawings beside the tables: their values follow from the records."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from robustbench_twicing import api
from robustbench_twicing.catalog.suites import suite_definition
from robustbench_twicing.metrics.intervals import wilson_interval
from robustbench_twicing.report.drawings import calibration_curves, family_curves
from robustbench_twicing.report.layouts import report_page
from tests.records_builder import cell, run_folder

IMAGES = 400


def test_calibration_and_families_are_drawn_from_the_records(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    family, names = next(iter(suite_definition("digits-c").spec.families.items()))
    threats = ["clean", *(f"digits-c:{name}-{severity}" for name in names for severity in (1, 3))]
    sure = {model: draw.uniform(0, 1, IMAGES) for model in ("deit", "deit-tw")}
    cells = [
        cell(model, threat, draw.random(IMAGES) < sure[model], confidence=sure[model])
        for model in sure
        for threat in threats
    ]
    run = api.load_run(run_folder(tmp_path / "run", pd.concat(cells, ignore_index=True)))
    (drawn,) = calibration_curves([run])
    assert [graph.name for graph in drawn.graphs] == ["calibrated", "deit", "deit-tw"]
    assert drawn.x_labels == tuple(str(middle) for middle in range(5, 100, 10))
    clean = cells[0]
    third = clean[(clean["confidence"] >= 0.2) & (clean["confidence"] < 0.3)]["correct"]
    graph = drawn.graphs[1]
    assert graph.values[2] == third.mean()
    assert (graph.low[2], graph.high[2]) == wilson_interval(int(third.sum()), len(third))
    (weather,) = family_curves([run])
    assert (weather.title, weather.x_labels) == (f"digits-c, {family}", ("1", "3"))
    at_three = [
        one["correct"].mean() for one in cells if one["model"].iloc[0] == "deit" and one["severity"].iloc[0] == 3
    ]
    graph = weather.graphs[0]
    assert graph.values[1] == pytest.approx(np.mean(at_three))
    assert graph.low[1] < graph.values[1] < graph.high[1]
    assert {part.key for part in report_page([run]).curves} >= {"calibration", f"family digits-c {family}"}


def test_answers_of_one_confidence_are_not_drawn(tmp_path: Path) -> None:
    run = api.load_run(run_folder(tmp_path / "run", cell("deit", "clean", np.arange(IMAGES) > 9)))
    assert [*calibration_curves([run]), *family_curves([run])] == []
