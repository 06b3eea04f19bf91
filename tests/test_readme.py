"""What the README shows works as shown."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from robustbench_twicing.cli.app import app

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()


def test_the_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    assert list(tmp_path.glob("results/runs/*/summary.csv"))


def test_every_command_shown_exists() -> None:
    commands = re.findall(r"^    (?:pip install \. && )?twicing-bench (.+)$", README, flags=re.MULTILINE)
    assert len(commands) >= 5
    for command in commands:
        words = command.split("#")[0].split()
        shown = [word for word in words if word.startswith("--")]
        group = words[: 2 if words[0] in ("catalog", "data", "config", "plan", "baseline") and len(words) > 1 else 1]
        # Arguments of `catalog show` and the like are not commands: click stops at the first that it does not know.
        result = CliRunner().invoke(app, [*group, "--help"], env={"COLUMNS": "200"}, catch_exceptions=False)
        text = result.output
        assert "Usage" in text, command
        assert [option for option in shown if option not in text] == [], command


def test_every_linked_file_exists() -> None:
    root = Path(__file__).resolve().parents[1]
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if not link.startswith("http")]
    assert len(links) > 5
    assert [link for link in links if not (root / link).exists()] == []
