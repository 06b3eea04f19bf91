"""What a user brings along, through the door users use."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from robustbench_twicing.api import load_run
from robustbench_twicing.catalog import plugins
from robustbench_twicing.cli.app import app
from robustbench_twicing.spec.attacks import SETTINGS

ATTACK = '''
import torch
from robustbench_twicing.engine.contract import Perturbed
from robustbench_twicing.spec.attacks import AttackSettings

def brighten(model, images, labels, threat, draws):
    """As bright as eps allows."""
    counts = torch.zeros(len(images), dtype=torch.int64)
    return Perturbed((images + float(threat.eps)).clamp(0, 1), counts, counts)

class Brighten(AttackSettings):
    algorithm: str = "brighten"
    share: float = 0.5
    engine = "brought_attacks:partly"
    gradient_free = True

def partly(model, images, labels, threat, draws):
    counts = torch.zeros(len(images), dtype=torch.int64)
    step = float(threat.eps) * threat.settings.share
    return Perturbed((images + step).clamp(0, 1), counts, counts)
'''


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "brought_attacks.py").write_text(ATTACK)
    yield
    plugins._used.clear()
    plugins._registered.cache_clear()
    SETTINGS.pop("brighten", None)
    sys.modules.pop("brought_attacks", None)
    sys.path[:] = [place for place in sys.path if place != str(tmp_path)]


def _attack(*arguments: str) -> Any:
    small = ["attack", "--model", "deit", "--eps", "8/255", "--limit", "4", "--quiet", "--json"]
    return CliRunner().invoke(app, [*small, *arguments])


@pytest.mark.parametrize(("name", "distance"), [("brighten", 8 / 255), ("Brighten", 4 / 255)])
def test_an_attack_of_the_users_own_runs_and_is_measured(name: str, distance: float) -> None:
    result = _attack("--attack", f"python:brought_attacks:{name}", "--out", "run")
    assert result.exit_code == 0, result.output
    row = json.loads(result.stdout)["rows"][-1]
    assert row["threat"] == f"{name}-linf-8/255"
    assert row["max_linf_distance"] == pytest.approx(distance, rel=1e-5)
    assert load_run("run").records["threat"].nunique() == 2


def test_other_code_is_another_attack(tmp_path: Path) -> None:
    hashes = []
    for change in ("", "# changed\n"):
        (tmp_path / "brought_attacks.py").write_text(ATTACK + change)
        plugins._used.clear()
        sys.modules.pop("brought_attacks", None)
        result = _attack("--attack", "python:brought_attacks:brighten")
        hashes.append(json.loads(result.stdout)["rows"][-1]["protocol_hash"])
    assert hashes[0] != hashes[1]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("python:brought_attacks:missing", "no attribute 'missing'"),
        ("python:not_there:x", "No module named 'not_there'"),
        ("python:brought_attacks:ATTACK", "no attribute"),
        ("python:brought_attacks:__name__", "is a str"),
        ("python:robustbench_twicing.engine.pgd:pgd", "which is an attack already"),
    ],
)
def test_what_is_no_attack_is_refused(text: str, says: str) -> None:
    result = _attack("--attack", text)
    assert result.exit_code == 2
    assert says in result.stderr
