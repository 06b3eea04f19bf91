"""Two hosts, made of network namespaces on this machine: other records than here never, also when one is cut off."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from robustbench_twicing import load_run

pytest.importorskip("ray", reason="the extra ray is not installed: nothing is known of clusters here")

pytestmark = pytest.mark.dear

ATTACK = '''
import time
from pathlib import Path
import torch
from robustbench_twicing.engine.contract import Perturbed

def brighten(model, images, labels, threat, draws):
    """As bright as eps allows; whoever computes says so, and waits as long as the file is there."""
    import ray
    here = Path(__file__).parent
    if ray.is_initialized():
        (here / f"at-{ray.util.get_node_ip_address()}").touch()
    while (here / "waits").exists():
        time.sleep(0.1)
    counts = torch.zeros(len(images), dtype=torch.int64)
    return Perturbed((images + float(threat.eps)).clamp(0, 1), counts, counts)
'''

HEAD, OTHER = "10.77.83.1", "10.77.83.2"
ADDRESS = f"{HEAD}:6383"
SPACES = {HEAD: "twicing-head", OTHER: "twicing-other"}
STORE = 80 * 2**20
"""Bytes of the head's object store: the least that Ray allows."""

BALLAST = f"""
import os, time, ray
ray.init(address="{ADDRESS}", log_to_driver=False)
held = [ray.put(os.urandom(20 * 2**20)) for _ in range(8)]
print("there", flush=True)
time.sleep(600)
"""

ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": "a token of these tests, and of nothing else",
    "RAY_worker_niceness": "0",
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "2000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "3",
    "OMP_NUM_THREADS": "1",
}


def _ip(*words: str, check: bool = True) -> None:
    subprocess.run(["ip", *words], check=check, capture_output=True, timeout=20)


@pytest.fixture(scope="module")
def _two_hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Each with a core, and a wire between them."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("no rights to make network namespaces here: nothing is known of several hosts")
    try:
        for space in SPACES.values():
            _ip("netns", "add", space)
            _ip("-n", space, "link", "set", "lo", "up")
        _ip(
            "link", "add", "wire", "netns", SPACES[HEAD], "type", "veth", "peer", "name", "wire", "netns", SPACES[OTHER]
        )
        for host, space in SPACES.items():
            _ip("-n", space, "addr", "add", f"{host}/24", "dev", "wire")
            _ip("-n", space, "link", "set", "wire", "up")
    except (OSError, subprocess.SubprocessError) as error:
        _remove()
        pytest.skip(f"no rights to make network namespaces here ({error}): nothing is known of several hosts")
    start = ["ray", "start", "--num-cpus=1", f"--object-store-memory={STORE}", "--disable-usage-stats"]
    head = ["--head", f"--port={ADDRESS.rpartition(':')[2]}", "--include-dashboard=false"]
    head.append(f"--temp-dir={tmp_path_factory.mktemp('r')}")
    for host, words in ((HEAD, head), (OTHER, [f"--address={ADDRESS}"])):
        subprocess.run(_at(host, *start, f"--node-ip-address={host}", *words), check=True, env=_environment())
    yield
    _remove()


def _environment() -> dict[str, str]:
    return {**{name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}, **ENVIRONMENT}


def _at(host: str, *command: str) -> list[str]:
    return ["ip", "netns", "exec", SPACES[host], *command]


def _remove() -> None:
    for space in SPACES.values():
        found = subprocess.run(["ip", "netns", "pids", space], capture_output=True, text=True, check=False)
        for process in found.stdout.split():
            subprocess.run(["kill", "-9", process], check=False, capture_output=True)
        _ip("netns", "del", space, check=False)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "breaking_attack.py").write_text(ATTACK)


def _command(out: str, *words: str) -> list[str]:
    attack = ["attack", "--model", "deit", "--attack", "python:breaking_attack:brighten", "--eps", "8/255", "--quiet"]
    return [sys.executable, "-m", "robustbench_twicing", *attack, "--out", out, *words]


def _on_both(out: str) -> "subprocess.Popen[str]":
    command = _at(HEAD, *_command(out, "--executor", "ray", "--address", ADDRESS, "--workers", "2"))
    return subprocess.Popen(command, env=_environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def _records(name: str) -> pd.DataFrame:
    return load_run(name).records.drop(columns="seconds")


@pytest.mark.usefixtures("_two_hosts")
def test_two_hosts_give_the_records_of_one_while_the_store_spills_and_when_one_is_cut_off(tmp_path: Path) -> None:
    subprocess.run(_command("here"), check=True, env=_environment(), stdout=subprocess.DEVNULL)
    ballast = subprocess.Popen(_at(HEAD, sys.executable, "-c", BALLAST), env=_environment(), stdout=subprocess.PIPE)
    assert ballast.stdout is not None
    assert ballast.stdout.readline() == b"there\n"
    try:
        run = _on_both("both")
        said, _ = run.communicate(timeout=400)
        assert run.returncode == 0, said
        assert ballast.poll() is None  # all of the run it held twice what the store has room for
    finally:
        ballast.kill()
        ballast.communicate()
    pd.testing.assert_frame_equal(_records("both"), _records("here"), check_exact=True)
    assert {place.name for place in tmp_path.glob("at-*")} == {f"at-{HEAD}", f"at-{OTHER}"}

    Path("waits").touch()
    for place in tmp_path.glob("at-*"):
        place.unlink()
    run = _on_both("cut")
    _wait(lambda: len(list(tmp_path.glob("at-*"))) == 2, run)
    _ip("-n", SPACES[HEAD], "link", "set", "wire", "down")
    Path("waits").unlink()
    said, _ = run.communicate(timeout=400)
    assert run.returncode == 0, said
    pd.testing.assert_frame_equal(_records("cut"), _records("here"), check_exact=True)


def _wait(what: Any, run: "subprocess.Popen[str]", seconds: float = 240.0) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert run.poll() is None, run.communicate()[0]
        assert time.monotonic() < until, "it never came"
        time.sleep(0.2)
