"""A training computes with torch.compile only where that is faster, and says what it measured."""

import subprocess
import sys
from typing import Any

import pytest
import torch

from robustbench_twicing.errors import UserError
from robustbench_twicing.train import compiled as measuring
from robustbench_twicing.train.job import ONE_CPU
from robustbench_twicing.train.loop import train
from tests.train.small import small_job, write_pictures
from tests.train.test_loop import Killed, killed_after, same

COMPILING = ONE_CPU._replace(compiles=True)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The networks that were compiled, which is: kept as they are."""
    networks: list[Any] = []

    def keep(network: Any, options: dict[str, bool]) -> Any:
        assert options == {"fallback_random": True}
        networks.append(network)
        return network

    monkeypatch.setattr(torch, "compile", keep)
    return networks


def _found(monkeypatch: pytest.MonkeyPatch, seconds: dict[str, float]) -> None:
    monkeypatch.setattr(measuring, "in_turns", lambda ways, measure: (seconds, 2))


@pytest.mark.parametrize(("took", "said"), [(0.5, "compiled"), (0.97, "not compiled"), (2.0, "not compiled")])
def test_only_what_is_faster_by_more_than_noise_is_taken_and_no_draw_changes(
    pictures: Any, kept: list[Any], monkeypatch: pytest.MonkeyPatch, took: float, said: str
) -> None:
    _found(monkeypatch, {"as it is": 1.0, "compiled": took})
    outcome = train(small_job(pictures), COMPILING)
    assert outcome.remarks == (f"{said}: a micro-batch took as it is 1000.0 ms, compiled {1000 * took:.1f} ms",)
    assert len(kept) == (2 if said == "compiled" else 1)  # the copy that is measured, and the network
    assert same(outcome.weights, train(small_job(pictures)).weights)


def test_a_training_that_goes_on_computes_as_it_began(
    pictures: Any, kept: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    _found(monkeypatch, {"as it is": 1.0, "compiled": 0.5})
    with pytest.raises(Killed):
        train(small_job(pictures), COMPILING._replace(checkpoint_seconds=0.0), tmp_path, killed_after(3))
    _found(monkeypatch, {"as it is": 1.0, "compiled": 2.0})
    kept.clear()
    outcome = train(small_job(pictures), COMPILING, tmp_path)
    assert len(kept) == 1
    assert outcome.remarks == ()


def test_the_measurement_leaves_weights_and_gradients_alone(pictures: Any, kept: list[Any]) -> None:
    outcome = train(small_job(pictures), COMPILING)  # measures by the clock
    assert any("compiled: a micro-batch took as it is" in one for one in outcome.remarks)
    assert same(outcome.weights, train(small_job(pictures)).weights)


def test_what_cannot_be_compiled_is_a_message(pictures: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(network: Any, options: dict[str, bool]) -> Any:
        def forward(images: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no compiler\nand much more")

        return forward

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(UserError, match="cannot be compiled: no compiler"):
        train(small_job(pictures), COMPILING)


def test_a_method_that_grows_while_it_trains_is_not_compiled(pictures: Any) -> None:
    with pytest.raises(UserError, match="each would be compiled anew"):
        train(small_job(pictures, ramp_epochs=1.0), COMPILING)


_REALLY = """
import sys
from pathlib import Path
from robustbench_twicing.train import loop
from robustbench_twicing.train.job import ONE_CPU
from tests.train.small import small_job
job = small_job(Path(sys.argv[1]))
other = loop.train(job).weights
loop.first_unless_slower = lambda seconds: "compiled"
outcome = loop.train(job, ONE_CPU._replace(compiles=True))
print(outcome.remarks[0].partition(":")[0], max(float((outcome.weights[k] - w).abs().max()) for k, w in other.items()))
"""


@pytest.mark.dear
def test_a_compiled_training_ends_nearly_where_the_other_does(pictures: Any) -> None:
    """In a process of its own: what checks types here is in the way of torch's tracing."""
    done = subprocess.run([sys.executable, "-c", _REALLY, pictures], check=True, capture_output=True, text=True)
    how, gap = done.stdout.split()
    assert how == "compiled"
    # Six updates of AdamW, whose first ones have the size of the learning rate whatever the gradient is.
    assert float(gap) < 2e-4
