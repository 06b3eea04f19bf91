"""Every table fits into 80 columns with the longest names there are: nothing is cut off, no number is broken."""

from collections.abc import Callable
from functools import cache
from io import StringIO
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from robustbench_twicing.catalog.suites import suite
from robustbench_twicing.report.arms import arms_page
from robustbench_twicing.report.calibration import calibration_table
from robustbench_twicing.report.compare import compare_page
from robustbench_twicing.report.estimate import estimate_page
from robustbench_twicing.report.formats import terminal
from robustbench_twicing.report.gate import Sides, gate_page
from robustbench_twicing.report.history import history_page
from robustbench_twicing.report.page import Column, Page, Table
from robustbench_twicing.report.run import accuracy_table, corruption_table, suites_table
from robustbench_twicing.results.arm_comparison import compare_all
from robustbench_twicing.results.arms import arms_of
from robustbench_twicing.results.baselines import Acceptance
from robustbench_twicing.results.cells import by_cell
from robustbench_twicing.results.comparison import compare_sides
from robustbench_twicing.results.gate import check
from robustbench_twicing.results.history import Point, Series
from robustbench_twicing.results.suite_figures import summarize_suites
from robustbench_twicing.results.summary import summarize
from robustbench_twicing.runner.estimate import CellCost, Cost
from robustbench_twicing.spec.policy import Policy
from tests.records_builder import cell, side, suites_of, with_flips

MODELS = ("deit_small_patch16_224.fb_in1k", "deit_small_twicing_patch16_224@drop-in")
BEFORE, AFTER = with_flips(200, right=153, lost=31, gained=42)


def _frame() -> pd.DataFrame:
    attack = {"kind": "attack", "attack": "apgd-dlr", "eps": "4/255", "suite": "", "protocol": "standard"}
    spec = suite("imagenet-c-generated")
    parts = [f"{spec.name}:{part.corruption}-{part.severity}" for part in spec.parts(spec.common)]
    cells = []
    for model, right in zip(MODELS, (BEFORE, AFTER), strict=True):
        cells += [cell(model, threat, right) for threat in ("clean", *parts)]
        cells += [cell(model, "apgd-dlr-linf-4/255", right, **attack)]
    return pd.concat(cells, ignore_index=True)


FRAME = _frame()


@cache
def _comparison() -> Page:
    sides = [side(FRAME, name) for name in MODELS]
    return compare_page(compare_sides([(sides[0], sides[1])]), flips=True)


def _compare(console: Console) -> None:
    terminal.show(_comparison(), console)


def _arms(console: Console) -> None:
    seeds = [f"{model}@s{seed}" for model in MODELS for seed in range(10)]
    threats = ("clean", "imagenet-c-generated:gaussian_noise-1")
    frame = pd.concat([cell(model, threat, BEFORE, attention="") for model in seeds for threat in threats])
    arms = arms_of(by_cell(frame), {model: [f"{model}@*"] for model in MODELS})
    terminal.show(arms_page(compare_all(arms), 0.01), console)


def _summary(console: Console) -> None:
    summary = summarize(by_cell(FRAME), suites_of(FRAME))
    tables = [accuracy_table(summary[summary["kind"] != "corruption"], "imagenet")]
    tables.append(corruption_table(summary, "imagenet-c-generated"))
    tables.append(calibration_table(summary))
    tables.append(suites_table(summarize_suites(by_cell(FRAME), suites_of(FRAME))))
    terminal.show(Page("a run", tuple(tables)), console)


def _gate(console: Console) -> None:
    when = "2026-11-20T02:00:00+00:00"
    accepted = Acceptance(who="ada", when=when, why="first", run="results/runs/x", run_started=when, weights={})
    sides = Sides("run", "baseline", accepted)
    terminal.show(gate_page(check(by_cell(FRAME), by_cell(FRAME), Policy()), sides), console)


def _history(console: Console) -> None:
    points = tuple(
        Point(f"night-{day}", "2026-11-23T02:00:00+00:00", "0f3a", "0.1.0", "", 1.0, (0.994, 1.0), 0)
        for day in range(40)
    )
    terminal.show(history_page([Series(MODELS[1], "apgd-dlr-linf-4/255", "imagenet", 50000, points)]), console)


def _cost(console: Console) -> None:
    counts: dict[str, Any] = {"samples": 50000, "left": 50000, "forwards": 5_050_000, "backwards": 5_000_000}
    cells = tuple(CellCost(model=name, threat="apgd-dlr-linf-4/255", seconds=7200.0, **counts) for name in MODELS)
    terminal.show(estimate_page(Cost(cells=cells, loading_seconds=3.0, size=10**7, free=10**10), "run"), console)


@pytest.mark.parametrize("show", [_compare, _arms, _summary, _gate, _history, _cost])
def test_a_table_fits_into_80_columns(show: Callable[[Console], None]) -> None:
    console = Console(width=80, file=StringIO())
    show(console)
    lines = console.file.getvalue().splitlines()
    assert not [line for line in lines if "…" in line or len(line.rstrip()) > 80]
    starts = {"┏": "┓", "┃": "┃", "┡": "┩", "│": "│", "├": "┤", "└": "┘"}
    assert not [line for line in lines if line[:1] in starts and line.rstrip()[-1] != starts[line[0]]]


def test_narrow_tables_keep_intervals() -> None:
    console = Console(width=80, file=StringIO())
    _history(console)
    assert "100.0 (99.4 - 100.0)" in console.file.getvalue()
    console = Console(width=80, file=StringIO())
    _compare(console)
    text = console.file.getvalue()
    assert "+5.5" in text
    assert np.count_nonzero([" to +" in line for line in text.splitlines()]) >= 77


@pytest.mark.parametrize(("width", "shown"), [(80, 9), (60, 7), (40, 4)])
def test_where_figures_have_no_room_the_last_are_left_out_and_named(width: int, shown: int) -> None:
    figures = [Column(f"f{number}", f"f{number}", "decimal", "last") for number in range(9)]
    row = {"suite": "imagenet-c", **{column.key: 1.25 for column in figures}}
    table = Table("t", "", (Column("suite", "suite"), *figures), (row,))
    console = Console(width=width, file=StringIO())
    terminal.show(Page("p", (table,)), console)
    text = console.file.getvalue()
    assert text.count("1.25") == shown
    left_out = ", ".join(column.heading for column in figures[shown:])
    assert (f"Left out at {width} columns: {left_out}." in " ".join(text.split())) == bool(left_out)
