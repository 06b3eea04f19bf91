"""What only reads results starts at once: no torch."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.records_builder import records, run_folder


@pytest.mark.parametrize(
    "module", ["cli.app", "report.run", "api", "results.summary", "results.store", "results.manifest"]
)
def test_reading_results_never_imports_torch(module: str) -> None:
    """Nor what takes a tenth of a second, and only some pages need or a lighter part of scipy does as well."""
    late = ("torch", "timm", "sklearn", "jinja2", "scipy.stats", "scipy.integrate", "scipy.optimize")
    heavy = f"sorted(name for name in {late} if name in sys.modules)"
    code = f"import sys, robustbench_twicing.{module}; print({heavy})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_nothing_imports_scipys_statistics() -> None:
    """A third of scipy, where `scipy.special` has the functions."""
    files = (Path(__file__).resolve().parents[1] / "robustbench_twicing").rglob("*.py")
    imports = re.compile(r"^\s*(from scipy\.stats|import scipy\.stats|from scipy import .*\bstats\b)", re.MULTILINE)
    assert [file.name for file in files if imports.search(file.read_text("utf-8"))] == []


def test_commands_that_read_results_work_without_torch(tmp_path: Path) -> None:
    """Torch is blocked, not only watched: the commands must not need it."""
    right = np.arange(50) < 45
    frame = records({(model, "clean"): right for model in ("deit", "deit-tw")})
    run_folder(tmp_path / "results" / "runs" / "night", frame)
    commands = [
        ["compare", "deit", "deit-tw", "--run", "results/runs/night"],
        ["baseline", "accept", "results/runs/night", "--to", "b", "--why", "test", "--who", "ada"],
        ["gate", "results/runs/night", "--baseline", "b", "--tolerance", "0.2"],
        ["history", "--rebuild", "--ad-hoc"],
        ["cache"],
        ["report", "results/runs/night"],
        ["report", "results/runs/night", "--json"],
        ["report", "results/runs/night", "--to", "page.html", "--to", "page.csv"],
        ["bundle", "results/runs/night", "--out", "evidence.zip"],
        ["bundle", "verify", "evidence.zip"],
        ["plan", "check", "nightly"],
    ]
    code = f"""
import sys
class Blocked:
    def find_spec(self, name, *rest):
        if name in ("torch", "timm", "sklearn"):
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
from typer.testing import CliRunner
from robustbench_twicing.cli.app import app
for command in {commands!r}:
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    print(command[0], result.exit_code, result.output if result.exit_code else "")
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert found.stdout.split("\n")[:-1] == [f"{command[0]} 0 " for command in commands]


def test_every_public_name_exists() -> None:
    import robustbench_twicing

    for name in robustbench_twicing.__all__:
        assert getattr(robustbench_twicing, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'evalute'"):
        getattr(robustbench_twicing, "evalute")  # noqa: B009 - mypy would find the misspelt attribute
