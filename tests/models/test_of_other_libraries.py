"""docs/add-a-model.md: models of torchvision, transformers and torch.hub, named on the command line as shown there."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from robustbench_twicing.catalog import plugins
from robustbench_twicing.cli.app import app
from robustbench_twicing.data.digits import digits
from robustbench_twicing.results.run import load_run
from robustbench_twicing.spec.models import Recipe

PAGE = Path(__file__).resolve().parents[2] / "docs" / "add-a-model.md"
THEIRS = """
dependencies = ["torch"]

def small():
    import torch
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 10))
"""


@pytest.fixture(autouse=True)
def _with_the_pages_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    (code,) = [
        block for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if "my_models.py" in block
    ]
    Path("my_models.py").write_text(code)
    Path("their_models").mkdir()
    Path("their_models/hubconf.py").write_text(THEIRS)
    yield
    plugins._used.clear()
    sys.modules.pop("my_models", None)
    sys.path[:] = [place for place in sys.path if place != str(tmp_path)]


@pytest.mark.parametrize("name", ["resnet", "from_hub", "vit", "dinov2"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_model_of_another_library_is_attacked_and_recorded_as_it_answers(name: str) -> None:
    if name in ("vit", "dinov2"):
        pytest.importorskip("transformers", reason="transformers is not installed: pip install transformers")
    words = ["attack", "-m", f"mine=python:my_models:{name}", "-a", "fgsm", "--limit", "3", "-q", "--out", "run"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        result = CliRunner().invoke(app, words, catch_exceptions=False)
        torch.manual_seed(7)
        model = getattr(sys.modules["my_models"], name)().eval()
    assert result.exit_code == 0, result.output
    records = load_run("run").records
    clean = records[records["threat"] == "clean"].set_index("sample_id")
    images, data = Recipe(), digits()
    with torch.no_grad():
        answer = model(data.read(range(3), [images]).images[images])
    expected = getattr(answer, "logits", answer).argmax(1).tolist()
    assert clean.loc[list(data.sample_ids[:3]), "prediction"].tolist() == expected
    assert set(records["attack"]) == {"", "fgsm"}
