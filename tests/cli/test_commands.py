"""Commands are imported when they are given, and help knows them without."""

import ast
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from robustbench_twicing.cli import commands, completing
from robustbench_twicing.cli.app import app
from robustbench_twicing.cli.commands import COMMANDS, loaded
from robustbench_twicing.cli.examples import EXAMPLES
from robustbench_twicing.cli.groups import first_sentence

HEAVY = ("numpy", "scipy", "pandas", "pyarrow", "torch", "timm", "jinja2", "pydantic")


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


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("co", ["corrupt", "compare", "collapse", "config"]),
        ("attack -m deit --attack fab", ["fab-t", "fab-min", "fab-t-l2", "fab-min-l2", "fab"]),
        ("bundle make results/runs/n", ["results/runs/night"]),
    ],
)
def test_completion_imports_no_library(typed: str, offered: list[str], tmp_path: Path) -> None:
    (tmp_path / "results" / "runs" / "night").mkdir(parents=True)
    (tmp_path / "results" / "runs" / "night" / "run.json").touch()
    code = (
        "import os, sys\n"
        f"words = {{'COMP_WORDS': 'twicing-bench {typed}', 'COMP_CWORD': '{len(typed.split())}'}}\n"
        "os.environ.update(words, _TWICING_BENCH_COMPLETE='complete_bash')\n"
        "from robustbench_twicing.cli.app import app\n"
        "try: app(prog_name='twicing-bench')\n"
        f"except SystemExit: print(*[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert said.stdout.split() == offered
    assert said.stderr.strip() == ""


def _offered(*typed: str) -> list[str]:
    """What TAB offers for the last of these words."""
    words = {"COMP_WORDS": " ".join(["twicing-bench", *typed]), "COMP_CWORD": str(len(typed))}
    said = CliRunner().invoke(
        app, [], prog_name="twicing-bench", env={**words, "_TWICING_BENCH_COMPLETE": "complete_bash"}
    )
    return said.stdout.split()


def test_what_completion_knows_of_options_is_what_the_commands_take() -> None:
    known = completing.FILE.read_text("utf-8").splitlines()
    assert known == list(completing.written()), "python -m robustbench_twicing.cli.completing writes it anew"


@pytest.mark.parametrize(
    ("typed", "among"),
    [
        ("attack --model d", "deit-tw"),
        ("corrupt --suite imagenet-", "imagenet-c-bar"),
        ("attack --suite=digits", "digits-c"),
        ("attack --protocol p", "paper"),
        ("attack --worst", "--worst-case"),
        ("attack --json --no", "--no-preflight"),
        ("report la", "latest"),
        ("bundle make la", "latest"),
        ("train --recipe de", "deit"),
        ("catalog show autoattack-", "autoattack-l2"),
        ("data make-corrupted --sev", "--severity"),
    ],
)
def test_completion_offers_options_and_names(typed: str, among: str) -> None:
    assert among in _offered(*typed.split())


# --- help ------------------------------------------------------------------------------------------------------------


def _paths() -> list[str]:
    """Every command that does something: `attack`, `bundle make` …"""
    return [line.split()[0].replace("/", " ") for line in completing.FILE.read_text("utf-8").splitlines()]


def _help(path: str, columns: int) -> list[str]:
    said = CliRunner().invoke(app, [*path.split(), "--help"], env={"COLUMNS": str(columns)}, catch_exceptions=False)
    return said.stdout.splitlines()


@pytest.mark.parametrize("path", _paths())
def test_help_is_a_line_for_each_option_and_cuts_no_name(path: str) -> None:
    for columns in (80, 200):
        lines = _help(path, columns)
        assert max(map(len, lines)) < columns
        assert any(line.startswith("Example: twicing-bench ") for line in lines)
    command = loaded(path.split()[0])
    command = command.commands[path.split()[1]] if " " in path else command
    words = " ".join(lines).replace(",", " ").split()
    for param in command.params:
        for name in [*param.opts, *param.secondary_opts] if param.param_type_name == "option" else []:
            assert name in words or f"--[no-]{name.removeprefix('--no-').removeprefix('--')}" in words


def test_the_help_of_attack_fits_two_screens_and_is_in_panels() -> None:
    lines = _help("attack", 80)
    assert len(lines) <= 2 * 24
    assert [line for line in lines[4:] if line and not line.startswith(" ")] == ["What", "How", "Where", "Output"]
    assert len(_help("attack", 200)) <= 50


@pytest.mark.parametrize("path", _paths())
def test_every_example_is_understood(path: str) -> None:
    words = shlex.split(EXAMPLES[path])
    assert words[0] == path.split()[0]
    command = loaded(words[0])
    with command.make_context(words[0], words[1:]) as ctx:
        if " " in path:
            name, own, rest = command.resolve_command(ctx, [*ctx._protected_args, *ctx.args])
            assert f"{words[0]} {name}" == path
            own.make_context(name, rest, parent=ctx)


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
