"""docs/add-an-attack.md, followed to the letter in a copy of the tree."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "add-an-attack.md").read_text(encoding="utf-8")


def _steps() -> list[list[str]]:
    """The code blocks of each numbered step."""
    section = PAGE.split("## A new algorithm")[1].split("\nWhat an algorithm may rely on")[0]
    steps = re.split(r"^\*\*\d\. ", section, flags=re.MULTILINE)[1:]
    blocks = [re.findall(r"(?:^(?: {4}.*)?\n)+", step, flags=re.MULTILINE) for step in steps]
    return [[dedent(block).strip() + "\n" for block in some if block.strip()] for some in blocks]


def _put(file: Path, before: str, text: str) -> None:
    content = file.read_text(encoding="utf-8")
    assert content.count(before) == 1
    file.write_text(content.replace(before, text + before), encoding="utf-8")


def _row(file: Path, table: str, row: str) -> None:
    """Put a row at the top of a table."""
    head = re.search(rf"^{table}\b.*\{{\n", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert head
    content = file.read_text(encoding="utf-8")
    file.write_text(content.replace(head[0], f"{head[0]}    {row}"), encoding="utf-8")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the tool is made of, with the page's algorithm added."""
    copy = tmp_path_factory.mktemp("tree")
    for name in (
        "robustbench_twicing",
        "attacks",
        "corruptions",
        "plans",
        "results/published",
        "tests/engine",
        "tests/oracles",
    ):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    (settings, settings_row), (engine,), (in_table,), (attack,), (in_test,) = _steps()
    (engine_import, engine_row), (test_import, test_row) = (block.split("\n\n") for block in (in_table, in_test))
    package = copy / "robustbench_twicing"
    _put(package / "spec" / "attacks.py", "SETTINGS: dict[", f"{settings}\n\n")
    _row(package / "spec" / "attacks.py", "SETTINGS", settings_row)
    (package / "engine" / "corners.py").write_text(engine, encoding="utf-8")
    _put(package / "engine" / "algorithms.py", "from robustbench_twicing.engine.fgsm", f"{engine_import}\n")
    _row(package / "engine" / "algorithms.py", "ALGORITHMS", engine_row)
    tests = copy / "tests" / "engine" / "test_properties.py"
    _put(tests, "from robustbench_twicing.spec.threats", f"{test_import}\n")
    _row(tests, "ATTACKS", test_row)
    rules = dedent(PAGE.split("## A new algorithm")[0].split("TOML file\n")[1].split("    [attacks.pgd]")[0])
    mine = rules.replace('["pgd"]', '["corners"]') + attack
    (copy / "mine.toml").write_text(mine, encoding="utf-8")
    return copy


def _run(tree: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(tree), "COLUMNS": "300"}
    command = [sys.executable, "-m", *words]
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)


ATTACK = [
    "robustbench_twicing",
    "attack",
    "--model",
    "deit",
    "--protocol",
    "mine.toml",
    "--eps",
    "16/255",
    "--limit",
    "2",
]


@pytest.mark.slow
def test_it_attacks_and_the_report_says_how(tree: Path) -> None:
    run = _run(tree, *ATTACK, "--device", "cpu", "--out", "run")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "corners 50 random corners" in run.stdout
    assert "corners-linf-16/255" in run.stdout


@pytest.mark.slow
def test_torchattacks_refuses_it_by_name(tree: Path) -> None:
    run = _run(tree, *ATTACK, "--engine", "torchattacks")
    assert run.returncode == 2
    assert "no counterpart of the algorithm 'corners'" in run.stderr + run.stdout


@pytest.mark.slow
def test_one_row_holds_it_to_what_every_algorithm_owes(tree: Path) -> None:
    run = _run(tree, "pytest", "-q", "tests/engine/test_properties.py", "-k", "corners or covered")
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count(".") > 5
