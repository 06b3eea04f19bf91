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


# --- how a command ends ----------------------------------------------------------------------------------------------

_WITH_A_FAULT = """
import robustbench_twicing.cli.catalog as catalog
from robustbench_twicing.__main__ import main

def broken(*_):
    raise RuntimeError("a fault of ours")

catalog.catalog_page = broken
main()
"""
_STOPPED_WHILE_IMPORTING = """
import sys

class Stops:
    def find_spec(self, name, *rest):
        if name == "typer":
            raise {error}

sys.meta_path.insert(0, Stops())
from robustbench_twicing.__main__ import main
main()
"""


def _python(code: str, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (_WITH_A_FAULT, "RuntimeError: a fault of ours"),
        (_STOPPED_WHILE_IMPORTING.format(error="ImportError('no such file')"), "ImportError: no such file"),
        (_STOPPED_WHILE_IMPORTING.format(error="ValueError('a\\x1bb')"), r"ValueError: a\x1bb"),
    ],
)
def test_a_fault_of_ours_has_an_exit_code_of_its_own_and_its_traceback_in_a_file(
    code: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    ended = _python(code, "catalog")
    assert ended.returncode == 70
    assert "Traceback" not in ended.stderr
    assert f"Internal error: {said}" in ended.stderr
    (file,) = tmp_path.glob("twicing-bench-*.txt")
    assert str(file) in ended.stderr
    assert "catalog\nTraceback" in file.read_text()


def test_ctrl_c_while_the_program_is_imported_is_an_interruption() -> None:
    ended = _python(_STOPPED_WHILE_IMPORTING.format(error="KeyboardInterrupt"))
    assert (ended.returncode, ended.stderr) == (130, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
@pytest.mark.parametrize("words", [["catalog"], ["catalog", "--json"], ["--help"]])
def test_output_that_cannot_be_written_is_said_without_a_traceback(words: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "robustbench_twicing", *words]
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    assert "No space left" in ended.stderr


@pytest.mark.parametrize(
    "words", [["attack", "-m", "deit", "-q"], ["run", "start"], ["show", "latest"], ["compare"], ["gate"], ["history"]]
)
def test_a_working_folder_that_is_gone_is_said_without_a_traceback(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    ended = _call(*words)
    assert ended.exit_code in (0, 2)
    assert "Traceback" not in ended.output
    if words[0] in ("attack", "run"):
        assert "The working folder is gone." in ended.output
