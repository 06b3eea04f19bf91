"""Commands are imported when they are given, and help knows them without."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from robustbench_twicing.cli import commands
from robustbench_twicing.cli.app import app
from robustbench_twicing.cli.commands import COMMANDS, loaded
from robustbench_twicing.cli.groups import first_sentence

HEAVY = ("numpy", "scipy", "pandas", "pyarrow", "torch", "timm", "jinja2")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_says_the_first_sentence_of_each_commands_own_help(name: str) -> None:
    command = loaded(name)
    assert first_sentence(command.help) == COMMANDS[name]
    assert command.name == name


def test_every_command_of_the_room_is_in_the_list() -> None:
    doors = set()
    for file in Path(commands.__file__).parent.glob("*.py"):
        names = {node.name for node in ast.parse(file.read_text("utf-8")).body if isinstance(node, ast.FunctionDef)}
        if file.stem in names or "\napp = App(" in file.read_text("utf-8"):
            doors.add(file.stem)
    assert doors - {"app"} == set(COMMANDS)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["no-such-command"]])
def test_what_needs_no_command_imports_no_library(arguments: list[str]) -> None:
    code = (
        "import sys; from robustbench_twicing.cli.app import app\n"
        f"try: app({arguments!r})\n"
        f"except SystemExit: print(*[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stderr.strip().split("\n")[-1] in ("", "Error: No such command 'no-such-command'.")


def test_completion_of_names_imports_no_library() -> None:
    code = (
        "import os, sys\n"
        "words = {'_TWICING_BENCH_COMPLETE': 'complete_bash', 'COMP_WORDS': 'twicing-bench co', 'COMP_CWORD': '1'}\n"
        "os.environ.update(words)\n"
        "from robustbench_twicing.cli.app import app\n"
        "try: app(prog_name='twicing-bench')\n"
        f"except SystemExit: print(*[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["corrupt", "compare", "collapse", "config"]
    assert said.stderr.strip() == ""


def test_a_misspelled_command_is_put_right() -> None:
    said = CliRunner().invoke(app, ["repot"])
    assert said.exit_code == 2
    assert "Did you mean 'report'?" in said.output


def test_info_says_versions_and_places_and_names_neither_people_nor_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWICING_BENCH_DATA_IMAGENET", "/secret/place")
    said = CliRunner().invoke(app, ["info", "--json"])
    assert said.exit_code == 0, said.output
    facts = json.loads(said.stdout)
    assert {"twicing-bench", "python", "torch", "timm", "torchattacks", "cuda", "package"} <= set(facts)
    assert "TWICING_BENCH_DATA_IMAGENET" in facts["variables"]
    assert "secret" not in said.output
    assert str(Path.home()) not in said.output


def test_groups_and_commands_have_no_options_of_the_whole() -> None:
    for name in COMMANDS:
        assert not [one for one in loaded(name).params if "completion" in (one.name or "")]
    assert isinstance(loaded("plan"), typer.core.TyperGroup)
