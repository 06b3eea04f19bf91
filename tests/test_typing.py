"""What a user's type checker knows of the public names."""

import ast
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import robustbench_twicing

ROOT = Path(__file__).resolve().parent.parent

STRICT = """
[mypy]
strict = True
follow_imports = silent

[mypy-torch.*,torchvision.*,timm.*,pandas.*,numpy.*,scipy.*,pydantic.*,safetensors.*,sklearn.*,pyarrow.*]
follow_imports = skip
ignore_missing_imports = True
"""
"""A user's own settings, but that large libraries are not read: none of these mistakes is about their types."""

RIGHT = """
from pathlib import Path

import robustbench_twicing as tb
from robustbench_twicing import UserError, apply_method, apply_twicing, corrupt, evaluate, load_run


class Net:
    def __call__(self, images: object) -> object:
        return images


run = evaluate(["deit", "deit-tw"], attacks=["fgsm", "pgd"], eps="1/255", limit=8, out=Path("runs"))
run = evaluate({"mine": Net(), "theirs": "deit"}, attacks="fgsm", eps=[0.01, "2/255"], image_size={"mine": 224})
run = tb.evaluate(Net(), suites="digits-c", severities=[1, 5], versions={"Net": "v2"})
names: list[str] = load_run(run.path).models
try:
    corrupt(apply_method, "fog", 3, ids=["a"])
except UserError as error:
    text: str = error.hint
apply_twicing(Net(), layers=[9, 10])
version: str = tb.__version__
"""

SLIPS = """
import robustbench_twicing as tb
from robustbench_twicing import UserError, corrupt, evaluate, load_run
from robustbench_twicing import evalute  # SLIP

run = evaluate("deit", attacks=["fgsm"])
evaluate("deit", attaks=["fgsm"])  # SLIP
tb.evaluate("deit", attaks=["fgsm"])  # SLIP
evaluate("deit", attacks=["fgsm"], limit="8")  # SLIP
evaluate("deit", "fgsm")  # SLIP
evaluate(3)  # SLIP
evaluate()  # SLIP
print(run.summary)
print(run.sumary)  # SLIP
load_run(3)  # SLIP
corrupt(None, "fog", "3")  # SLIP
tb.evalute("deit")  # SLIP
eps: float = evaluate("deit").models  # SLIP
raise UserError(hint="without a message")  # SLIP
"""


def reported(codes: Mapping[str, str], folder: Path) -> dict[str, dict[int, str]]:
    """What `mypy --strict` says of a user's files, by their names, each by line."""
    (folder / "mypy.ini").write_text(STRICT)
    for name, code in codes.items():
        (folder / f"{name}.py").write_text(code)
    options = [f"--config-file={folder / 'mypy.ini'}", f"--cache-dir={folder / 'cache'}", "--no-error-summary"]
    command = [sys.executable, "-m", "mypy", *options, *(str(folder / f"{name}.py") for name in codes)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found: dict[str, dict[int, str]] = {name: {} for name in codes}
    for line in done.stdout.splitlines():
        if match := re.fullmatch(r"(.+)\.py:(\d+): error: (.+)", line):
            found[Path(match[1]).name][int(match[2])] = match[3]
    return found


@pytest.mark.slow
def test_a_type_checker_finds_every_slip_and_nothing_else(tmp_path: Path) -> None:
    found = reported({"slips": SLIPS, "right": RIGHT}, tmp_path)
    planted = {number for number, line in enumerate(SLIPS.splitlines(), 1) if line.endswith("# SLIP")}
    assert set(found["slips"]) == planted, found
    assert sum('Unexpected keyword argument "attaks"' in text for text in found["slips"].values()) == 2
    assert found["right"] == {}


def test_type_checkers_and_the_interpreter_are_told_the_same_places() -> None:
    tree = ast.parse(Path(robustbench_twicing.__file__).read_text())
    told = [step for block in tree.body if isinstance(block, ast.If) for step in block.body]
    typed = {name.name: step.module for step in told if isinstance(step, ast.ImportFrom) for name in step.names}
    assert typed == robustbench_twicing._WHERE
    assert {*typed, "__version__"} == set(robustbench_twicing.__all__)
    assert (Path(robustbench_twicing.__file__).parent / "py.typed").is_file()
