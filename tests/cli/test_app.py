"""What all commands have in common."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from robustbench_twicing.cli.app import app


def _call(*words: str) -> Any:
    return CliRunner().invoke(app, words, catch_exceptions=False, env={"COLUMNS": "200"})


@pytest.mark.parametrize(
    "words",
    [
        ["attack", "-m", "deit", "--protocol", "standard", "--protocol", "paper"],
        ["attack", "-m", "deit", "--seed=1", "--seed=1"],
        ["run", "nightly", "--out", "a", "--out", "b"],
        ["attack", "-m", "deit", "--preflight", "--no-preflight"],
        ["data", "make-corrupted", "--out", "a", "--out", "b"],
        ["compare", "--alpha", "0.1", "--alpha", "0.2"],
    ],
)
def test_a_single_option_that_is_given_twice_is_refused(words: list[str], monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    result = _call(*words)
    assert result.exit_code == 2
    assert "is given 2 times, and there is room for one" in result.output
    assert not list(tmp_path.iterdir())


def test_an_option_for_several_values_may_be_given_several_times(monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert "given" not in _call("attack", "-m", "deit", "-m", "deit-tw", "-a", "fgsm", "-a", "pdg").output


@pytest.mark.parametrize("command", [["catalog"], ["catalog", "show", "standard"], ["--help"], ["config", "show"]])
def test_a_reader_who_goes_away_is_no_mistake(command: list[str]) -> None:
    """As under `| head -1`: at once, so that some of it is still in the buffer when the command ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", "robustbench_twicing", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    _, said = process.communicate(timeout=120)
    assert (process.returncode, said) == (0, b"")
