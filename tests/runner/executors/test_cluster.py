"""What a cluster must have, and what is refused before anything is computed. No cluster is started here."""

import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from robustbench_twicing import evaluate
from robustbench_twicing.catalog.plans import read_plan
from robustbench_twicing.catalog.plugins import Origin
from robustbench_twicing.cli.app import app
from robustbench_twicing.errors import UserError
from robustbench_twicing.runner.environment import code_and_versions, versions_of_this
from robustbench_twicing.runner.executors import cluster
from robustbench_twicing.runner.executors.cluster import Places, places_of
from robustbench_twicing.runner.executors.loads import loads_of
from robustbench_twicing.runner.executors.ray import refuse_other_versions
from robustbench_twicing.runner.executors.worker import Job, Worker
from robustbench_twicing.runner.prepare import Ready, prepare
from robustbench_twicing.spec.means import Means


def _nodes(*resources: tuple[int, int]) -> list[dict[str, Any]]:
    return [{"Alive": True, "Resources": {"CPU": float(cpu), "GPU": float(gpu)}} for cpu, gpu in resources]


@pytest.mark.parametrize(
    ("nodes", "asked", "places"),
    [
        (_nodes((2, 0)), {}, Places(2, 1, 0.0)),
        (_nodes((8, 0)), {"workers": 2}, Places(2, 4, 0.0)),
        (_nodes((3, 0), (3, 0)), {"workers": 4}, Places(4, 1, 0.0)),
        (_nodes((2, 0), (6, 0)), {"workers": 4}, Places(4, 2, 0.0)),
        (_nodes((16, 4), (16, 4)), {}, Places(8, 4, 1.0)),
        (_nodes((16, 4), (16, 4)), {"gpus_per_model": 0.5}, Places(16, 2, 0.5)),
        (_nodes((16, 4), (64, 0)), {"workers": 3}, Places(3, 5, 1.0)),
        (_nodes((16, 4)), {"device": "cpu"}, Places(16, 1, 0.0)),
        (_nodes((2, 8)), {}, Places(2, 1, 1.0)),
    ],
)
def test_workers_fill_what_there_is(nodes: list[dict[str, Any]], asked: dict[str, Any], places: Places) -> None:
    assert places_of(nodes, Means(executor="ray", **asked)) == places


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"gpus_per_model": 0.5}, "A GPU was asked for, and none of the 1 machine"),
        ({"device": "cuda"}, "A GPU was asked for"),
        ({"device": "cuda:1"}, "Workers find their own GPUs"),
        ({"workers": 3}, "3 worker.s. need a core each, and the cluster has room for 2"),
    ],
)
def test_what_a_cluster_has_no_room_for_is_refused(asked: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        places_of(_nodes((2, 0)), Means(executor="ray", **asked))


@pytest.fixture
def silent() -> Iterator[str]:
    """An address where something listens that never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def _refused(*words: str) -> str:
    small = ["attack", "--model", "deit", "--attack", "fgsm", "--limit", "4", "--quiet", "--out", "run"]
    result = CliRunner().invoke(app, [*small, *words], catch_exceptions=False, env={"COLUMNS": "300"})
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return " ".join(result.output.split())


def test_what_cannot_be_joined_is_refused_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cluster, "ANSWER_SECONDS", 1.0)
    assert "means nothing without a cluster" in _refused("--workers", "2")
    ray = ("--executor", "ray")
    assert "makes its images in this process" in _refused(*ray, "--keep-images", "2")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "ray", None)
        assert "Ray is not installed. Install it: pip install 'twicing-bench[ray]'" in _refused(*ray)
    pytest.importorskip("ray", reason="the extra ray is not installed")
    monkeypatch.setenv("RAY_ADDRESS", "")
    assert f"No Ray cluster answers at {silent} within 1 s" in _refused(*ray, "--address", silent)
    assert "No Ray cluster answers at 127.0.0.1:1 within 1 s" in _refused(*ray, "--address", "127.0.0.1:1")
    assert "is no address of a Ray cluster" in _refused(*ray, "--address", "somewhere")
    assert "is Ray's client, which is not used here" in _refused(*ray, "--address", "ray://head:10001")
    assert not Path("run/run.json").exists()


def test_a_model_in_memory_cannot_travel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="mine lies in the memory of this process"):
        evaluate({"mine": torch.nn.Flatten()}, attacks="fgsm", executor="ray")


# --- a worker, called in this process --------------------------------------------------------------------------------

PLAN = """
models = ["deit", "deit-tw"]
worst_case = true
limit = 300
[[attacks]]
names = ["fgsm", "pgd"]
[[suites]]
name = "digits-c"
corruptions = ["fog"]
severities = [1]
"""


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Ready:
    file = tmp_path_factory.mktemp("plan") / "p.toml"
    file.write_text(PLAN)
    return prepare(read_plan(file).plan, Means(), torch.device("cpu"), {})


def _job(ready: Ready, **other: Any) -> Job:
    own = {
        "plan": ready.plan,
        "means": Means(device="cpu"),
        "models": {},
        "entries": ready.entries,
        "origins": (),
        "folder": str(Path.cwd()),
        "threads": torch.get_num_threads(),
    }
    return Job(**{**own, **other})


def test_every_pending_shard_is_in_one_load_the_dearest_first_and_what_shares_work_stays_together(
    ready: Ready,
) -> None:
    pending = {cell: entry.shards for cell, entry in zip(ready.plan.cells, ready.entries, strict=True)}
    loads = loads_of(ready, pending, workers=2)
    shards = [piece.shard for load in loads for piece in load.pieces]
    assert sorted(shards) == sorted(shard for some in pending.values() for shard in some)
    assert [load.cost for load in loads] == sorted((load.cost for load in loads), reverse=True)
    for load in loads:
        cells = [ready.plan.cells[piece.place] for piece in load.pieces]
        assert len({piece.shard.start // 256 for piece in load.pieces}) == 1
        kinds = {cell.threat.kind == "attack" for cell in cells}
        assert kinds == {False} or len({cell.model.name for cell in cells}) == 1
        # The worst case has both attacks as its parts; the images of clean and fog are read once, for both models.
        assert len(load.pieces) == (3 if kinds == {True} else 4)


def test_a_worker_with_other_data_code_or_folders_is_refused_by_name(ready: Ready, tmp_path: Path) -> None:
    others = [entry.model_copy(update={"samples_hash": "0" * 12}) for entry in ready.entries]
    with pytest.raises(UserError, match=r"On \S+: the images of clean \(digits, 597 samples, fingerprint"):
        Worker().open(_job(ready, entries=tuple(others)))
    others = [entry.model_copy(update={"folder": "elsewhere"}) for entry in ready.entries]
    with pytest.raises(UserError, match="or the weights of deit are not those"):
        Worker().open(_job(ready, entries=tuple(others)))
    plan = ready.plan.model_copy(update={"data": ready.plan.data.model_copy(update={"name": "imagenet"})})
    with pytest.raises(UserError, match=r"(?s)On \S+: Nothing at .*nowhere.*Every worker must see the same files"):
        Worker().open(_job(ready, plan=plan, means=Means(device="cpu", directories={"imagenet": tmp_path / "nowhere"})))
    with pytest.raises(UserError, match=r"is nothing here, and 1\.0 where the run was started"):
        Worker().open(_job(ready, origins=(Origin("attacks", "brought", "brought-attacks", "1.0"),)))


def test_workers_of_other_versions_are_refused_by_the_first_difference() -> None:
    code, versions = code_and_versions()
    ours = {**versions_of_this(), **versions}
    told = {**Worker().introduce(), "host": "node-7"}
    refuse_other_versions(told, code, ours)
    with pytest.raises(UserError, match=r"The worker on node-7 has torch 1\.0, and this process"):
        refuse_other_versions({**told, "versions": {**ours, "torch": "1.0"}}, code, ours)
    with pytest.raises(UserError, match="node-7 has timm none"):
        refuse_other_versions({**told, "versions": {k: v for k, v in ours.items() if k != "timm"}}, code, ours)
    with pytest.raises(UserError, match="another version of this package's code"):
        refuse_other_versions({**told, "code": "0f3a"}, code, ours)
