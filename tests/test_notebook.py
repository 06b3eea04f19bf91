"""The page of docs/ that is a notebook: run again, it shows what it shows."""

import re
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "notebook.ipynb"
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def _plain(cell: Any) -> list[str]:
    return [output["data"]["text/plain"] for output in cell.outputs if output.output_type == "execute_result"]


def _printed(notebook: Any) -> list[str]:
    return [text for cell in notebook.cells if cell.cell_type == "code" for text in _plain(cell)]


@pytest.mark.dear
def test_the_notebook_of_the_documentation_shows_what_it_shows_without_ipywidgets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Words to the letter; numbers may differ by two images of sixty on another processor."""
    nbformat = pytest.importorskip("nbformat", reason="nbclient is not installed: pip install nbclient ipykernel")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed: pip install nbclient ipykernel")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed: pip install nbclient ipykernel")
    (tmp_path / "ipywidgets.py").write_text("raise ImportError('not here')\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{NOTEBOOK.parents[1]}")
    committed = nbformat.read(NOTEBOOK, as_version=4)
    again = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(again, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    said, expected = _printed(again), _printed(committed)
    assert len(expected) >= 6
    assert [_NUMBER.sub("#", text).split() for text in said] == [_NUMBER.sub("#", text).split() for text in expected]
    for text, wanted in zip(said, expected, strict=True):
        numbers, known = ([float(found) for found in _NUMBER.findall(one)] for one in (text, wanted))
        assert numbers == pytest.approx(known, abs=2.01 if "size" in wanted else 0.06)


def test_its_tables_are_committed_and_nothing_in_it_is_large_or_a_script() -> None:
    text = NOTEBOOK.read_text("utf-8")
    assert text.count("<table") >= 4
    assert "<script" not in text
    assert len(text) < 60_000
    assert '"stderr"' not in text


def test_what_a_comparison_is_called_takes_a_line(tmp_path: Path) -> None:
    import numpy as np

    from robustbench_twicing import api
    from tests.records_builder import records, run_folder

    right = np.arange(40) < 36
    found = api.compare(run_folder(tmp_path / "run", records({(name, "clean"): right for name in ("a", "b")})))
    assert repr(found) == "Comparisons(1 × no difference found)"
