"""`twicing-bench report`, and what all commands print have in common: encodings, widths, help, JSON."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from robustbench_twicing.cli.app import app
from robustbench_twicing.cli.commands import loaded
from tests.records_builder import records, run_folder


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    frame = records({(model, "clean"): [True] * 36 + [False] * 4 for model in ("deit", "deit-tw")})
    run_folder(Path("results/runs/night"), frame)


def _call(*arguments: str, code: int = 0) -> Any:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False, env={"COLUMNS": "100"})
    assert result.exit_code == code, result.output
    return result


def test_a_finished_run_is_shown_again() -> None:
    text = _call("report", "results/runs/night").stdout
    assert "│ clean  │ deit    │ 40 │    90.0 │" in text
    assert "Run folder: results/runs/night" in text
    content = json.loads(_call("report", "results/runs/night", "--json").stdout)
    assert content["status"] == "finished"
    assert content["lacking"] == []
    assert [(row["model"], row["n"], row["accuracy"], row["drop"]) for row in content["rows"]] == [
        ("deit", 40, 0.9, 0.0),
        ("deit-tw", 40, 0.9, 0.0),
    ]
    assert _call("report", "results/runs/night", "--format", "markdown").stdout.startswith("## No difference found")


def test_a_run_that_is_not_finished_is_shown_with_its_state() -> None:
    manifest = Path("results/runs/night/run.json")
    manifest.write_text(manifest.read_text().replace('"status": "finished"', '"status": "running"'))
    next(iter(Path("results/runs/night").glob("records/deit-tw*/*.parquet"))).unlink()
    text = _call("report", "results/runs/night").stdout
    assert "Not finished: 1 of 2 shards are still to be done." in text
    assert "deit-tw.clean" not in text
    content = json.loads(_call("report", "results/runs/night", "--json").stdout)
    assert content["status"] == "running"
    assert len(content["lacking"]) == 1
    for shard in Path("results/runs/night").glob("records/*/*.parquet"):
        shard.unlink()
    assert "Not finished: 2 of 2 shards" in _call("report", "results/runs/night").stdout  # and no table


def test_a_finished_run_that_lacks_a_shard_says_which() -> None:
    next(iter(Path("results/runs/night").glob("records/deit-tw*/*.parquet"))).unlink()
    assert "Not whole: 1 of 2 shards do not count: deit-tw.clean" in " ".join(
        _call("report", "results/runs/night").stdout.split()
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere"], "There is no run 'nowhere'"),
        (["nightly"], "was not carried out yet"),
        (["results"], "run.json"),
        (["results/runs/night", "--format", "jsn"], "Did you mean json"),
        (["results/runs/night", "--format", "json", "--json"], "leave one of them away"),
        (["results/runs/night", "--format", "junit"], "Nothing is judged"),
    ],
)
def test_bad_input_is_explained(arguments: list[str], says: str) -> None:
    assert says in _call("report", *arguments, code=2).output


# --- what all commands have in common ---------------------------------------------------------------------------------


def _process(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[bytes]":
    command = [sys.executable, "-m", "robustbench_twicing", *arguments]
    known = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "PYTHONIOENCODING")}
    return subprocess.run(command, capture_output=True, env=known | environment)


def test_a_whole_run_is_printed_in_ascii_and_at_a_width_of_zero() -> None:
    attack = ["attack", "--model", "deit", "--attack", "fgsm", "--limit", "20", "--quiet"]
    done = _process(*attack, PYTHONIOENCODING="ascii", COLUMNS="0")
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    text = done.stdout.decode("ascii")
    assert "inf <= 1/255" in text
    assert "| fgsm-linf-1/255 | deit  | 20 |" in text
    assert "Run folder: results/runs/" in text


@pytest.mark.parametrize("columns", ["0", "", "many", "200"])
def test_every_width_prints_the_report(columns: str) -> None:
    shown = _process("report", "results/runs/night", COLUMNS=columns)
    assert (shown.returncode, shown.stderr) == (0, b"")
    assert b"clean" in shown.stdout


def test_a_width_of_zero_prints_the_mistake() -> None:
    refused = _process("report", "nothing", COLUMNS="0")
    assert refused.returncode == 2
    assert b"There is no run 'nothing'" in refused.stderr


def test_names_of_a_command_line_cannot_paint_the_terminal() -> None:
    said = _call("report", "\x1b[31mred\u202e", code=2).output
    assert "\\x1b[31mred\\u202e" in said
    assert "\x1b[31mred" not in said


@pytest.mark.parametrize(
    "arguments",
    [
        ["catalog"],
        ["catalog", "list"],
        ["catalog", "show", "pgd"],
        ["catalog", "show", "imagenet-a"],
        ["cache"],
        ["cache", "--prune"],
        ["config", "show"],
        ["plan", "check", "nightly"],
        ["history", "--rebuild", "--ad-hoc"],
        ["compare", "results/runs/night"],
        ["baseline", "accept", "results/runs/night", "--to", "b", "--why", "x"],
        ["report", "results/runs/night"],
    ],
)
def test_whatever_prints_a_table_prints_json(arguments: list[str]) -> None:
    assert json.loads(_call(*arguments, "--json").stdout)


def test_a_baseline_says_in_json_who_accepted_what() -> None:
    _call("baseline", "accept", "results/runs/night", "--to", "b", "--why", "first", "--who", "ada")
    _call("baseline", "accept", "results/runs/night", "--to", "b", "--why", "second", "--who", "bob")
    content = json.loads(_call("baseline", "show", "b", "--json").stdout)
    assert (content["accepted"]["who"], [one["why"] for one in content["earlier"]]) == ("bob", ["first"])


def _commands(command: Any, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, inside in getattr(command, "commands", {}).items():
        yield from _commands(inside if path else loaded(name), *path, name)


def test_help_texts_say_every_word_of_themselves() -> None:
    seen = 0
    for path, command in _commands(typer.main.get_command(app)):
        shown = "".join(_call(*path, "--help").stdout.split())
        texts = [command.help, *(getattr(parameter, "help", None) for parameter in command.params)]
        texts += [inside.help for inside in getattr(command, "commands", {}).values()]
        for text in filter(None, texts):
            first = text if text is command.help else text.split("\n\n")[0].partition(". ")[0]
            assert "".join(first.split()).removesuffix(".") in shown, path
            seen += "[" in text
    assert seen  # such as [gate], which is no markup
