"""A run and a comparison as the last value of a notebook's cell."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

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


_EVALUATED = """
from robustbench_twicing import evaluate

run = evaluate("deit", attacks="fgsm", eps="4/255", limit=8, out="run", preflight=False)
"""


def _executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Any], dict[str, Any]]:
    """What a cell puts out in a real kernel, and the widgets in it."""
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed: pip install nbclient ipykernel")
    nbformat = pytest.importorskip("nbformat", reason="nbclient is not installed: pip install nbclient ipykernel")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed: pip install nbclient ipykernel")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(robustbench_twicing.__file__).parents[1]}")
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(_EVALUATED)])
    client = nbclient.NotebookClient(book, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    return book.cells[0].outputs, client.widget_state


@pytest.mark.dear
def test_a_notebook_with_widgets_shows_a_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ipywidgets", reason="ipywidgets is not installed: pip install ipywidgets")
    outputs, widgets = _executed(tmp_path, monkeypatch)
    assert "application/vnd.jupyter.widget-view+json" in outputs[0].data
    assert not any(output.data["text/plain"] for output in outputs[1:])  # rich moves a cursor that is not there
    (drawn,) = [widget["outputs"] for widget in widgets.values() if "outputs" in widget]
    assert "100 %" in drawn[0]["data"]["text/plain"]
    assert "deit fgsm-linf-4/255 (2 of 2)" in drawn[0]["data"]["text/plain"]


@pytest.mark.dear
def test_a_notebook_without_them_shows_plain_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ipywidgets.py").write_text("raise ImportError('not here')\n")
    outputs, _ = _executed(tmp_path, monkeypatch)
    said = "".join(output.data["text/plain"] for output in outputs if "data" in output)  # tqdm warns on stderr
    assert said.startswith("2 cell(s) done after ")
