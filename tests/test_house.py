"""The house rules that a reader can count: how long a function and a file are, and how many arguments a call takes."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LINES_OF_A_FUNCTION, LINES_OF_A_FILE, LINES_OF_THE_API, PARAMETERS = 60, 400, 150, 8
KEYWORDS_BY_DESIGN = {"robustbench_twicing/api.py:evaluate"}
"""`evaluate` takes the fields of Experiment and Means; tests/test_doors.py holds that they are these. Commands in
cli/ take an option each, for typer."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def over(path: str, code: str) -> list[str]:
    """What is over a limit in a file of this path (from the repository's root)."""
    lines = len(code.splitlines())
    most = LINES_OF_THE_API if path == "robustbench_twicing/api.py" else LINES_OF_A_FILE
    found = [f"{path}: {lines} lines"] if lines > most else []
    for function in _functions(code):
        name = f"{path}:{function.name}"
        lines = (function.end_lineno or 0) - function.lineno + 1
        if lines > LINES_OF_A_FUNCTION:
            found.append(f"{name}: {lines} lines")
        if _parameters(function) > PARAMETERS and "/cli/" not in path and name not in KEYWORDS_BY_DESIGN:
            found.append(f"{name}: {_parameters(function)} parameters")
    return found


def _functions(code: str) -> Iterator[Function]:
    return (node for node in ast.walk(ast.parse(code)) if isinstance(node, Function))


def _parameters(function: Function) -> int:
    """How many arguments there are to be given; a method's `self` is none."""
    said = function.args
    places = [*said.posonlyargs, *said.args]
    bound = bool(places) and places[0].arg in ("self", "cls")
    return len(places) - bound + len(said.kwonlyargs) + bool(said.vararg) + bool(said.kwarg)


@pytest.mark.parametrize("folder", ["robustbench_twicing", "benchmarks"])
def test_no_function_file_or_signature_is_over_its_limit(folder: str) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    found = [what for file in files for what in over(file.relative_to(ROOT).as_posix(), file.read_text("utf-8"))]
    assert found == []


def test_what_is_one_over_a_limit_is_found_and_what_is_at_it_is_not() -> None:
    def function(lines: int, parameters: int) -> str:
        return f"def f(self, {', '.join(f'a{n}' for n in range(parameters))}):\n" + "    a0\n" * (lines - 1)

    path = "robustbench_twicing/engine/any.py"
    assert over(path, function(60, 8) + "\n" * 340) == []
    assert over(path, function(61, 8)) == [f"{path}:f: 61 lines"]
    assert over(path, function(60, 9)) == [f"{path}:f: 9 parameters"]
    assert over(path, "\n" * 401) == [f"{path}: 401 lines"]
    assert over("robustbench_twicing/cli/any.py", function(60, 9)) == []
    assert over("robustbench_twicing/api.py", "\n" * 151) == ["robustbench_twicing/api.py: 151 lines"]
