"""What is said while a run works: at once, one bar, and in a file one line a minute."""

import io
from typing import Any

import pytest
from rich.console import Console

from robustbench_twicing.report import progress
from robustbench_twicing.report.progress import CellProgress
from robustbench_twicing.spec.models import ModelSpec
from robustbench_twicing.spec.plan import Cell
from robustbench_twicing.spec.threats import CorruptionThreat

CELLS = [
    Cell(
        ModelSpec(name="deit", architecture="a", weights="w"),
        CorruptionThreat(suite="digits-c", corruption=name, severity=severity, generated=True),
    )
    for name in ("fog", "snow")
    for severity in (1, 2, 3, 4, 5)
]
MINUTES = 30


class _Clock:
    """Goes on by three seconds with each batch."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def _followed(quiet: bool = False) -> None:
    clock = _Clock()
    per_cell = MINUTES * 60 // 3 // len(CELLS)
    with CellProgress(dict.fromkeys(CELLS, (per_cell, per_cell)), quiet, clock) as following:
        for cell in CELLS:
            for _ in range(per_cell):
                clock.now += 3
                following.advance(cell, 1)
            following.finish(cell)


def test_a_file_gets_one_line_a_minute_and_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    _followed()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == MINUTES + 1
    assert lines[0] == "3 % after 60 s, about 29 min left: deit digits-c:fog-1 (1 of 10)"
    assert lines[-2].startswith("100 % after 30 min, about 0 s left: deit digits-c:snow-5 (10 of 10)")
    assert lines[-1] == "10 cell(s) done after 30 min"


def test_quiet_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    _followed(quiet=True)
    assert capsys.readouterr().err == ""


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    written = io.StringIO()

    def console(**_: Any) -> Console:
        return Console(file=written, force_terminal=True, width=80, markup=False, _environ={"TERM": "xterm"})

    monkeypatch.setattr(progress, "console", console)
    return written


def test_a_terminal_gets_one_bar_over_everything_with_the_cell_at_work(terminal: io.StringIO) -> None:
    _followed()
    text = terminal.getvalue()
    assert "deit digits-c:snow-5 (10 of 10)" in text
    assert "\x1b[1A" not in text.rsplit("100 %", 1)[0]  # never a second line to go back over
