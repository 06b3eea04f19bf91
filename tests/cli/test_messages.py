"""What is said before hours are spent: mistakes at once, and a first line without a silence."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from robustbench_twicing.cli.app import app

_PLAN = 'models = ["deit", "deit-tw"]\nlimit = 5\n[[attacks]]\nnames = ["fgsm"]\n'
_WITHOUT_TORCH = """
import sys
from typer.testing import CliRunner
from robustbench_twicing.cli.app import app
for line in sys.stdin.read().splitlines():
    result = CliRunner().invoke(app, line.split())
    print(result.exit_code, "torch" in sys.modules, " ".join(result.output.split()))
"""


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _call(*arguments: str, code: int = 0) -> Any:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False, env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    return result


def test_what_is_not_there_is_refused_before_torch_is_imported() -> None:
    Path("p.toml").write_text('models = ["deit"]\ndata = "imagenet"\n[directories]\nimagenet = "nowhere"\n')
    expected = {
        "attack --model deit=nowhere": "No checkpoint at nowhere.",
        "attack --model resnet50 --data imagenet --data-dir nowhere": "Nothing at nowhere.",
        "attack --model resnet50 --data imagenet": "No folder is known for 'imagenet'.",
        "attack --model deit --data nowhere.toml": "No file nowhere.toml.",
        "attack --model deit --protocol nowhere.toml": "No file nowhere.toml.",
        "corrupt --model resnet50 --suite imagenet-c --data-dir nowhere": "Nothing at nowhere.",
        "corrupt --model resnet50 --suite imagenet-c-generated --data-dir nowhere": "Nothing at nowhere.",
        "corrupt --model deit --corruption frost --frost-dir nowhere": "Nothing at nowhere. Check --frost-dir",
        "run p.toml": "Nothing at nowhere.",
        "run p.toml --dry-run": "Nothing at nowhere.",
        "verify --model deit_tiny_patch16_224.fb_in1k --data-dir imagenet-a=nowhere": "Nothing at nowhere.",
        "data check imagenet nowhere": "Nothing at nowhere.",
        "data make-corrupted --data-dir nowhere --out made": "Nothing at nowhere.",
    }
    commands = "\n".join(expected)
    command = [sys.executable, "-c", _WITHOUT_TORCH]
    done = subprocess.run(command, input=commands, capture_output=True, text=True, check=True)
    for (command_line, says), said in zip(expected.items(), done.stdout.splitlines(), strict=True):
        assert re.match("2 False (Loading … )?Error: ", said), (command_line, said)
        assert says in said, command_line


def test_a_plot_that_cannot_be_written_is_refused_before_a_plan_is_carried_out() -> None:
    Path("p.toml").write_text(_PLAN)
    Path("file").touch()
    assert "Cannot write a plot as '.tex'" in _call("compare", "p.toml", "--plot", "x.tex", code=2).output
    _call("compare", "p.toml", "--plot", "file/x.png", code=2)
    assert not Path("results").exists()


def test_the_first_line_comes_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    attack = ["attack", "--model", "deit", "--attack", "fgsm", "--limit", "5", "--json"]
    assert _call(*attack).stderr.splitlines()[0] == "Loading …"
    assert _call(*attack, "--quiet").stderr == ""

    def stuck(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("robustbench_twicing.api.carry_out", stuck)
    assert _call(*attack, code=130).stderr.startswith("Loading …\n")


def test_one_image_answered_rightly_is_no_sign_of_guessing() -> None:
    said = _call("attack", "--model", "deit", "--attack", "fgsm", "--limit", "1", "--quiet")
    assert "guessing" not in said.output
    assert "│ clean           │ deit  │ 1 │   100.0 │" in said.stdout


def test_the_commands_of_the_page_of_all_commands_work_in_their_order() -> None:
    """As copied, but on few images."""
    readme = (Path(__file__).resolve().parents[2] / "docs" / "commands.md").read_text("utf-8")
    (block,) = re.findall(r"## Is one model really better\?\n\n((?:    .+\n)+)", readme)
    Path("nightly.toml").write_text('extends = "nightly"\nlimit = 20\n[gate]\ntolerance = 0.3\n')
    commands = [line.strip().removeprefix("twicing-bench ") for line in block.splitlines()]
    assert len(commands) == 6
    for command in commands:
        few = command.replace(" nightly --", " nightly.toml --")
        few = f"{few} --limit 20" if few.startswith("attack") else few
        few = "run nightly.toml" if few == "run nightly" else few
        _call(*(word.strip('"') for word in re.findall(r'"[^"]+"|\S+', few)))
