"""What only reads results starts at once: no torch."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["cli.app", "report.console", "api", "summary", "store", "runner.schedule"])
def test_reading_results_never_imports_torch(module: str) -> None:
    heavy = "sorted(name for name in ('torch', 'timm', 'sklearn') if name in sys.modules)"
    code = f"import sys, robustbench_twicing.{module}; print({heavy})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_every_public_name_exists() -> None:
    import robustbench_twicing

    for name in robustbench_twicing.__all__:
        assert getattr(robustbench_twicing, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'evalute'"):
        getattr(robustbench_twicing, "evalute")  # noqa: B009 - mypy would find the misspelt attribute
