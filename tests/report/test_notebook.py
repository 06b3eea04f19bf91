"""A run and a comparison as the last value of a notebook's cell."""

from pathlib import Path
from typing import Any

import numpy as np

import robustbench_twicing
from robustbench_twicing import api
from tests.records_builder import records, run_folder


def _shown(value: Any) -> str:
    html = value._repr_html_()  # what IPython calls
    assert isinstance(html, str)
    return html


def test_a_run_and_a_comparison_are_tables_with_their_numbers(tmp_path: Path) -> None:
    right = np.arange(40) < 36
    folder = run_folder(tmp_path / "run", records({(name, "clean"): right for name in ("<b>deit</b>", "tw")}))
    for value in (robustbench_twicing.load_run(folder), api.compare(folder)):
        text = _shown(value)
        assert text.count("<table") == 1
        assert ">90.0</td>" in text
        assert "&lt;b&gt;deit" in text
        assert "<b>" not in text
        assert "<script" not in text
