"""What the README and the page of all commands show works as shown."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from robustbench_twicing.cli.app import app

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")
COMMANDS = (ROOT / "docs" / "commands.md").read_text("utf-8")


def test_the_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", COMMANDS, flags=re.DOTALL)
    exec(compile(code, "docs/commands.md", "exec"), {})
    assert list(tmp_path.glob("results/runs/*/summary.csv"))


def test_every_command_shown_exists() -> None:
    commands = re.findall(r"^    (?:pip install \. && )?twicing-bench (.+)$", README + COMMANDS, flags=re.MULTILINE)
    assert len(commands) >= 25
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
    for text, folder in ((README, ROOT), (COMMANDS, ROOT / "docs")):
        links = [link for link in re.findall(r"\]\(([^)#]+)", text) if not link.startswith("http")]
        assert len(links) > 5
        assert [link for link in links if not (folder / link).exists()] == []


def test_the_readme_is_a_screen_and_a_half() -> None:
    assert len(README.splitlines()) <= 70
