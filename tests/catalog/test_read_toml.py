"""TOML files that are no TOML, or more of it than a parser can take, at every door that reads one."""

from pathlib import Path
from time import process_time

import pytest
from typer.testing import CliRunner

from robustbench_twicing.catalog.read_toml import read_toml
from robustbench_twicing.cli.app import app
from robustbench_twicing.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
DEEP = 100_000
NESTED = {
    "arrays": "models = " + "[" * DEEP + "]" * DEEP,
    "arrays that never end": "models = " + "[" * DEEP,
    "tables": "models = " + "{a=" * DEEP + "1" + "}" * DEEP,
    "both": "models = " + "[{a=" * DEEP + "1" + "}]" * DEEP,
    "lines": "models = " + "[\n" * DEEP + "]\n" * DEEP,
    "a dotted key": ".".join("a" * DEEP) + " = 1",
    "a quoted key": ".".join(['"]"'] * DEEP) + " = 1",
    "a header": "[" + " . ".join("a" * DEEP) + "]",
    "after quotes": 'models = ["""x"""""' + ", [" * DEEP + "]" * DEEP + "]",
    "some of each": "models = " + ("{" + ".".join("a" * 60) + " = ") * 60 + "1" + "}" * 60,
}
DOORS = {
    "twicing-bench.toml": ["config", "show"],
    "plan.toml": ["run", "plan.toml"],
    "protocol.toml": ["attack", "-m", "deit", "--protocol", "protocol.toml"],
    "suite.toml": ["corrupt", "-m", "deit", "-s", "suite.toml"],
}


@pytest.mark.parametrize("form", NESTED)
def test_what_is_nested_too_deep_is_refused_at_once(form: str, tmp_path: Path) -> None:
    path = tmp_path / "deep.toml"
    path.write_text(NESTED[form])
    start = process_time()
    with pytest.raises(UserError, match=r"deep\.toml is nested too deep"):
        read_toml(path)
    assert process_time() - start < 5


@pytest.mark.parametrize("file", DOORS)
def test_every_door_refuses_what_is_nested_too_deep(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(file).write_text(NESTED["tables"])
    said = CliRunner().invoke(app, DOORS[file], catch_exceptions=False, env={"COLUMNS": "200"})
    assert (said.exit_code, f"{file} is nested too deep" in said.output) == (2, True), said.output


def test_nothing_else_in_the_package_parses_toml() -> None:
    package = ROOT / "robustbench_twicing"
    parsing = {path.name for path in package.rglob("*.py") if "tomllib" in path.read_text("utf-8")}
    # What TAB reads ships with the tool, and read_toml.py imports pydantic.
    assert parsing == {"read_toml.py", "completing.py"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (f"a = '{'[' * DEEP}'", "[" * DEEP),
        (f'a = "{"{.a" * DEEP}"', "{.a" * DEEP),
        (f'a = "\\"{"[" * DEEP}"', '"' + "[" * DEEP),
        (f"a = '''\n'{'[' * DEEP}'''", "'" + "[" * DEEP),
        (f'a = """\\"""{"[" * DEEP}\n""{"[" * DEEP}"""', '"""' + "[" * DEEP + '\n""' + "[" * DEEP),
        (f"# {'[' * DEEP}\na = 1", 1),
        (f"a = [\n{'[1.5], ' * 1000}1.5]", [[1.5]] * 1000 + [1.5]),
        (f'b = ["""x""""", \'{"[" * DEEP}\']\na = 1', 1),
        ("b.c = 1\n" + "".join(f"b.d.x{number} = 1.5\n" for number in range(500)) + "a = 2", 2),
    ],
    ids=lambda value: str(value)[:12],
)
def test_only_what_nests_counts(text: str, value: object, tmp_path: Path) -> None:
    path = tmp_path / "wide.toml"
    path.write_text(text)
    assert read_toml(path)["a"] == value


def test_whatever_the_parser_raises_is_a_message(tmp_path: Path) -> None:
    path = tmp_path / "odd.toml"
    path.write_text("a = " + "9" * 5000)
    with pytest.raises(UserError, match=r"odd\.toml is not valid TOML: .*digits"):
        read_toml(path)
