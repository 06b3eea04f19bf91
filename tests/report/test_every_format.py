"""One run in every format: the numbers are those of summary.csv, to the last digit that is printed."""

import csv
import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pytest

from robustbench_twicing import api
from robustbench_twicing.report.formats import FORMATS
from robustbench_twicing.report.full import full_page
from robustbench_twicing.report.page import Page
from robustbench_twicing.results.compared import compared_runs
from tests.records_builder import records, run_folder
from tests.report.shown import printed
from tests.report.test_hostile import HOSTILE, PAGES

MODELS = ("deit", "deit-tw")
ATTACKS = ("fgsm-linf-1/255", "fgsm-linf-4/255", "pgd-linf-1/255", "pgd-linf-4/255")


@cache
def made() -> tuple[Page, pd.DataFrame, pd.DataFrame]:
    """The page of a run of two models under four attacks and two corruptions, its summary.csv as pandas reads it, and
    the figures of its suites."""
    rng = np.random.default_rng(7)
    threats = ["clean", *ATTACKS, *(f"digits-c:{name}-{level}" for name in ("fog", "frost") for level in (1, 3, 5))]
    outcomes = {(model, threat): rng.random(173) < rng.uniform(0.3, 1) for model in MODELS for threat in threats}
    with TemporaryDirectory() as place:
        folder = run_folder(Path(place) / "run", records(outcomes))
        run = api.load_run(folder)
        return full_page([run], compared_runs([run])), pd.read_csv(folder / "summary.csv"), run.suites


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _points(value: float) -> str:
    points = 100 * value
    digits = 2 if 0 < abs(points) < 0.5 else 1
    return f"{points:+.{digits}f}".replace("-", "−")


def _expected() -> list[tuple[str, ...]]:
    """Of clean images and attacks, what a table says: threat, model, accuracy, interval, drop, its interval; by our own
    rounding."""
    found = []
    _, summary, _ = made()
    for row in summary[summary["kind"] != "corruption"].itertuples():
        drop = [_points(row.drop), f"{_points(row.drop_low)} to {_points(row.drop_high)}"]
        found.append(
            (
                row.threat,
                row.model,
                "173",
                _percent(row.accuracy),
                f"{_percent(row.ci_low)} - {_percent(row.ci_high)}",
                *(["", ""] if row.kind == "clean" else drop),
            )
        )
    return found


def _corrupted() -> list[tuple[str, ...]]:
    """Of corruptions: name, model, accuracy by severity, mean."""
    _, summary, _ = made()
    corrupted = summary[summary["kind"] == "corruption"]
    return [
        (
            str(name),
            str(model),
            *map(_percent, rows.sort_values("severity")["accuracy"]),
            _percent(rows["accuracy"].mean()),
        )
        for (name, model), rows in corrupted.groupby(["corruption", "model"], sort=False)
    ]


def _text(name: str) -> str:
    return FORMATS[name].write(made()[0]).decode()


def _in_the_terminal() -> list[tuple[str, ...]]:
    found, first = [], ""
    for line in printed(made()[0], 200).split("\n"):
        if line.startswith("│"):
            cells = [cell.strip() for cell in line.strip("│").split("│")]
            first = cells[0] or first  # said once in a group
            found.append((first, *cells[1:]))
    return found


def _in_markdown() -> list[tuple[str, ...]]:
    found, first = [], ""
    for line in _text("markdown").split("\n"):
        if line.startswith("| "):
            cells = [re.sub(r"\\(.)", r"\1", cell.strip()) for cell in line.strip("|").split(" |")]
            first = cells[0] or first
            found.append((first, *cells[1:]))
    return found


def _in_latex() -> list[tuple[str, ...]]:
    found, first = [], ""
    for line in _text("latex").split("\n"):
        if line.endswith(r" \\") and " & " in line:
            line = line.replace("$-$", "−").replace("{-}", "-").replace("\\_", "_")
            cells = [cell.strip() for cell in line.removesuffix(r"\\").split("&")]
            first = cells[0] or first
            found.append((first, *cells[1:]))
    return found


class _Rows(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.inside = tag in ("td", "th")
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.rows[-1][-1] += data


def _in_html() -> list[tuple[str, ...]]:
    read = _Rows()
    read.feed(_text("html"))
    return [tuple(row) for row in read.rows]


READERS: dict[str, Callable[[], list[tuple[str, ...]]]] = {
    "terminal": _in_the_terminal,
    "markdown": _in_markdown,
    "latex": _in_latex,
    "html": _in_html,
}


@pytest.mark.parametrize("name", READERS)
def test_what_people_read_is_summary_csv_rounded(name: str) -> None:
    rows = READERS[name]()
    assert [row for row in [*_expected(), *_corrupted()] if row not in rows] == []


def _suite_figures() -> dict[tuple[str, str, str], float]:
    _, _, suites = made()
    numbers = suites.select_dtypes("number")
    return {
        (suites.loc[place, "model"], suites.loc[place, "suite"], str(figure)): value
        for place, row in numbers.iterrows()
        for figure, value in row.items()
        if not np.isnan(value)
    }


def test_csv_is_summary_csv_and_the_figures_of_suites_with_every_digit(tmp_path: Path) -> None:
    _, summary, _ = made()
    (tmp_path / "page.csv").write_text(_text("csv"))
    written = pd.read_csv(tmp_path / "page.csv")
    mine = written[written["kind"] != "suite"].reset_index(drop=True)
    pd.testing.assert_frame_equal(mine[list(summary)], summary, check_dtype=False, check_exact=True)
    rows = written[written["kind"] == "suite"].set_index(["model", "suite"])
    found = {key: rows.loc[key[:2], key[2]] for key in _suite_figures()}
    assert found == _suite_figures() != {}


def test_the_long_form_holds_the_same_numbers() -> None:
    _, summary, _ = made()
    rows = list(csv.DictReader(io.StringIO(_text("long-csv"))))
    found = {(row["model"], row["threat"], row["figure"]): float(row["value"]) for row in rows if row["threat"]}
    for row in summary.to_dict("records"):
        for figure in ("n", "accuracy", "ci_low", "ci_high", "drop", "mean_loss"):
            assert found[row["model"], row["threat"], figure] == row[figure]
    whole = {(row["model"], row["suite"], row["figure"]): float(row["value"]) for row in rows if not row["threat"]}
    assert whole == _suite_figures()


def test_json_holds_the_same_numbers() -> None:
    _, summary, _ = made()
    rows = {(row["model"], row["threat"]): row for row in json.loads(_text("json"))["rows"]}
    for row in summary.to_dict("records"):
        for figure in ("n", "accuracy", "ci_low", "ci_high", "drop"):
            assert rows[row["model"], row["threat"]][figure] == row[figure]


def test_latex_compiles_with_every_name_in_every_page(tmp_path: Path) -> None:
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not installed (Debian: texlive-latex-recommended), so nothing was compiled")
    pages = [
        made()[0],
        *(PAGES[page](name) for page in ("run", "compare", "gate", "history") for name in HOSTILE.values()),
    ]
    whole = replace(pages[0], parts=tuple(part for page in pages for part in page.parts))
    (tmp_path / "page.tex").write_bytes(FORMATS["latex"].write(whole))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="latin-1")
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Missing character" not in (tmp_path / "page.log").read_text("latin-1")
