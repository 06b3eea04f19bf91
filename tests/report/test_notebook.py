"""A run and a comparison as the last value of a notebook's cell."""

import json
import subprocess
import sys
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


_EXECUTING = """
import sys
import nbclient, nbformat

book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(sys.stdin.read())])
nbclient.NotebookClient(book, timeout=200).execute()
nbformat.write(book, "book.ipynb")
"""


def _executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Any], list[Any]]:
    """What a cell puts out in a real kernel, and what is drawn in its widgets. In a process of its own: the client has
    an event loop, which may hang in a process that had other ones."""
    for package in ("nbclient", "nbformat", "ipykernel"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install nbclient ipykernel")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(robustbench_twicing.__file__).parents[1]}")
    command = [sys.executable, "-c", _EXECUTING]
    subprocess.run(command, input=_EVALUATED, cwd=tmp_path, text=True, capture_output=True, timeout=300, check=True)
    book = json.loads((tmp_path / "book.ipynb").read_text("utf-8"))
    widgets = book["metadata"].get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {}).get("state", {})
    drawn = [one["state"]["outputs"] for one in widgets.values() if "outputs" in one["state"]]
    return book["cells"][0]["outputs"], drawn


@pytest.mark.dear
def test_a_notebook_with_widgets_shows_a_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ipywidgets", reason="ipywidgets is not installed: pip install ipywidgets")
    outputs, (drawn,) = _executed(tmp_path, monkeypatch)
    assert "application/vnd.jupyter.widget-view+json" in outputs[0]["data"]
    assert not any("".join(output["data"]["text/plain"]) for output in outputs[1:])
    shown = "".join(drawn[0]["data"]["text/plain"])
    assert "100 %" in shown
    assert "deit fgsm-linf-4/255 (2 of 2)" in shown


@pytest.mark.dear
def test_a_notebook_without_them_shows_plain_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ipywidgets.py").write_text("raise ImportError('not here')\n")
    outputs, _ = _executed(tmp_path, monkeypatch)
    said = "".join("".join(output["data"]["text/plain"]) for output in outputs if "data" in output)  # tqdm warns, too
    assert said.startswith("2 cell(s) done after ")
