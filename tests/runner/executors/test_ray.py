"""Runs on a real cluster of several processes on this machine: the same records as here, also when things break."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from robustbench_twicing import load_run
from robustbench_twicing.catalog import plugins
from robustbench_twicing.cli.app import app
from robustbench_twicing.runner.executors import ray as executor

pytest.importorskip("ray", reason="the extra ray is not installed: nothing is known of clusters here")

pytestmark = pytest.mark.dear

ATTACK = '''
import os, signal, time
from pathlib import Path
import torch
from robustbench_twicing.engine.contract import Perturbed

def brighten(model, images, labels, threat, draws):
    """As bright as eps allows; what else happens, files in the working folder say."""
    here = Path(__file__).parent
    if len(images) > 200 and (here / "kills").exists():
        (here / "kills").unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    if len(images) < 100 and (here / "fails").exists():
        raise RuntimeError("this shard cannot be done")
    while (here / "waits").exists():
        time.sleep(0.1)
    counts = torch.zeros(len(images), dtype=torch.int64)
    return Perturbed((images + float(threat.eps)).clamp(0, 1), counts, counts)
'''

RUN = ("attack", "--model", "deit", "--attack", "python:breaking_attack:brighten", "--eps", "8/255", "--quiet")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two cores in one node, more of which tests add; Ray's processes here are not nice, else tests take minutes."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": "a token of these tests, and of nothing else",
            "RAY_worker_niceness": "0",
            "OMP_NUM_THREADS": "1",
        }.items():
            patch.setenv(name, value)
        patch.delenv("RAY_ADDRESS", raising=False)
        from ray._private.authentication_test_utils import reset_auth_token_state
        from ray.cluster_utils import Cluster

        reset_auth_token_state()  # this process may have looked into its environment before
        found = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
        yield found
        found.shutdown()
    reset_auth_token_state()


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "breaking_attack.py").write_text(ATTACK)
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as each worker has
    yield
    torch.set_num_threads(before)
    plugins._used.clear()
    sys.modules.pop("breaking_attack", None)
    sys.path[:] = [place for place in sys.path if place != str(tmp_path)]


def _run(*words: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, [*RUN, *words], catch_exceptions=False, env={"COLUMNS": "300"})
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def _on(cluster: Any, workers: int = 2) -> tuple[str, ...]:
    return ("--executor", "ray", "--address", cluster.address, "--workers", str(workers))


def _records(name: str) -> pd.DataFrame:
    return load_run(name).records.drop(columns="seconds")


def _same(one: str, other: str) -> None:
    pd.testing.assert_frame_equal(_records(one), _records(other), check_exact=True)


def test_workers_that_die_and_a_shard_that_fails_change_no_record(cluster: Any) -> None:
    """A worker is killed in mid-shard, and a shard fails until it is mended: to the bit what this process computes."""
    Path("kills").touch()
    Path("fails").touch()
    said = _run("--out", "broken", *_on(cluster), code=1)
    assert "Error: 1 shard(s) could not be computed" in said
    assert "samples 512 to 596: RuntimeError: this shard cannot be done" in said
    assert not Path("kills").exists()
    assert load_run("broken").manifest.status == "running"
    Path("fails").unlink()
    done = {file: file.stat().st_mtime_ns for file in Path("broken").glob("records/*/*.parquet")}
    assert len(done) == 5  # of six: three shards of clean, and three of the attack
    _run("--out", "broken", *_on(cluster))
    assert all(file.stat().st_mtime_ns == before for file, before in done.items())
    _run("--out", "here")
    _same("broken", "here")
    means, made_by = load_run("broken").manifest.means, load_run("broken").manifest.made_by
    assert means.workers == 2
    assert made_by == load_run("here").manifest.made_by
    _run("--out", "broken", "--executor", "ray", "--address", "127.0.0.1:1")  # nothing to do: no cluster is asked for


def test_a_driver_that_is_killed_and_a_node_that_is_lost_change_no_record(cluster: Any) -> None:
    _run("--out", "here")
    Path("waits").touch()
    command = [sys.executable, "-m", "robustbench_twicing", *RUN, "--out", "lost", *_on(cluster)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _wait(lambda: list(Path("lost").glob("records/clean*/*")) or list(Path("lost").glob("records/*clean*/*")))
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert load_run("lost").manifest.status == "running"
    node = cluster.add_node(num_cpus=1)

    def lose() -> None:
        time.sleep(15)  # all three workers are there and wait
        cluster.remove_node(node, allow_graceful=False)
        Path("waits").unlink()

    losing = threading.Thread(target=lose)
    losing.start()
    _run("--out", "lost", *_on(cluster, 3))
    losing.join()
    _same("lost", "here")


def test_workers_of_another_version_and_gpus_that_are_not_there_are_refused_before_the_first_shard(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "A GPU was asked for, and none of the" in _run("--out", "x", *_on(cluster), "--gpus-per-model=1", code=2)
    monkeypatch.setattr(executor, "code_and_versions", lambda: ("0f3a", {"torch": "1.0"}))
    assert f"has torch {torch.__version__.partition('+')[0]}" in _run("--out", "x", *_on(cluster, 1), code=2)
    assert not list(Path("x").glob("records/*/*"))


def test_ctrl_c_exits_130_and_the_same_command_continues(cluster: Any) -> None:
    Path("waits").touch()
    command = [sys.executable, "-m", "robustbench_twicing", *RUN, "--out", "stopped", *_on(cluster)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    _wait(lambda: list(Path("stopped").glob("records/*clean*/*")))
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 130, said
    assert "Interrupted. What was finished is kept" in said
    assert "Traceback" not in said
    Path("waits").unlink()
    _run("--out", "stopped", *_on(cluster))
    assert Path("stopped/summary.csv").exists()


def _wait(what: Any, seconds: float = 240.0) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.2)
