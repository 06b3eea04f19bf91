"""What workers on Ray cost and gain on this machine, and how much memory the driver needs for very many shards.

    python benchmarks/scale.py                 # everything, a quarter of an hour on two quiet cores; writes scale.csv
    python benchmarks/scale.py --only memory   # 100,000 shards that nobody computes, half a minute

A worker has `cores / workers` threads, or OMP_NUM_THREADS if that is less: it stands beside `local` with as many. Wall
time of a digits plan with four cells of half a minute, from the manifest on the disk to the end, in which the second
worker starts. Records are compared to the bit, with paths that no warm-up chose. The numbers mean something only
while nothing else runs: the CSV says how busy the machine was.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pandas as pd
import torch
from conditions import commit, installed, processor

PLAN = """
models = ["deit", "deit-tw"]
[[attacks]]
names = ["apgd-ce", "apgd-dlr"]
eps = ["4/255"]
[means]
batch_size = 128
attention_path = "fused"
"""
SHARDS = 100_000


def seconds_at_work(place: Path, name: str, threads: int, *options: str) -> float:
    """Of a run in a process of its own, from its manifest to its end."""
    command = [sys.executable, "-m", "robustbench_twicing", "run", "plan.toml", "--fresh", "--quiet", "--out", name]
    begun = time.time()
    with subprocess.Popen(
        [*command, *options], cwd=place, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": str(threads)}
    ) as process:
        manifest = place / name / "run.json"
        while process.poll() is None and not (manifest.exists() and manifest.stat().st_mtime > begun):
            time.sleep(0.01)
        at_work = time.monotonic()
    if process.returncode:
        raise SystemExit(f"{name} ended with exit code {process.returncode}")
    return time.monotonic() - at_work


def records(run: Path) -> pd.DataFrame:
    """Of a run, without what is measured."""
    found = pd.concat([pd.read_parquet(file) for file in sorted(run.glob("records/*/*.parquet"))])
    keys = ["model", "threat", "sample_id"]
    return found.drop(columns="seconds").sort_values(keys).reset_index(drop=True)


def speed(turns: int = 2) -> Iterator[dict[str, Any]]:
    """Wall time of the same plan, five ways in turns."""
    ways: dict[str, tuple[int, *tuple[str, ...]]] = {
        "local, 1 thread": (1,),
        "ray, 1 worker of 1 thread": (1, "--executor", "ray", "--workers", "1"),
        "ray, 2 workers": (1, "--executor", "ray", "--workers", "2"),
        "local, 2 threads": (2,),
        "ray, 1 worker": (2, "--executor", "ray", "--workers", "1"),
    }
    with TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "plan.toml").write_text(PLAN)
        for turn in range(turns):
            for way, (threads, *options) in ways.items():
                seconds = seconds_at_work(place, _folder(way), threads, *options)
                print(f"{way}: {seconds:.1f} s", flush=True)
                yield {"what": f"{way}, s", "turn": turn, "value": seconds}
        yield from predicted(place / "plan.toml")
        pairs = (("local, 1 thread", "ray, 1 worker of 1 thread"), ("local, 1 thread", "ray, 2 workers"))
        for one, other in (*pairs, ("local, 2 threads", "ray, 1 worker")):
            same = records(place / _folder(one)).equals(records(place / _folder(other)))
            print(f"{one} and {other}: {'the same records' if same else 'OTHER RECORDS'}", flush=True)
            yield {"what": f"{one} and {other}: the same records", "turn": 0, "value": float(same)}


def _folder(way: str) -> str:
    return way.replace(", ", "-").replace(" ", "-")


def predicted(plan: Path) -> Iterator[dict[str, Any]]:
    """What the cost model of docs/scale.md says for 1 and 2 workers, from the rate that a probe finds here."""
    from robustbench_twicing.runner.carry_out import estimate_plan_file

    torch.set_num_threads(1)
    cost, _, _ = estimate_plan_file(plan)
    cells = [cell.seconds for cell in cost.cells]
    longest = max(cell.seconds * min(256, cell.samples) / cell.samples for cell in cost.cells)
    for workers in (1, 2):
        seconds = sum(cells) / workers + (longest if workers > 1 else 0.0)
        print(f"predicted, {workers} worker(s): {seconds:.1f} s", flush=True)
        yield {"what": f"predicted, {workers} worker(s), s", "turn": 0, "value": seconds}


def memory() -> Iterator[dict[str, Any]]:
    """The driver's own memory: loads are cut, given and taken back; the workers are made up and answer at once."""
    from robustbench_twicing.catalog.plans import read_plan
    from robustbench_twicing.results.manifest import Shard
    from robustbench_twicing.results.used import MeansUsed
    from robustbench_twicing.runner.executors.flight import Flight
    from robustbench_twicing.runner.executors.loads import Load, Piece
    from robustbench_twicing.tasks.task import NOBODY

    with TemporaryDirectory() as folder:
        (Path(folder) / "plan.toml").write_text(PLAN)
        cells = read_plan(Path(folder) / "plan.toml").plan.cells
    before = _resident()
    loads = [Load((Piece(0, Shard("cell", start, start + 8), 1.0),)) for start in range(0, 8 * SHARDS, 8)]
    flight = Flight(_made_up(), [_worker() for _ in range(64)], [], MeansUsed(), loads)
    done = sum(1 for _ in flight.finished(cells, NOBODY))
    assert done == SHARDS
    print(f"driver: {_resident():.0f} MB with torch, {_resident() - before:.0f} MB of it for {SHARDS:,} shards")
    yield {"what": "driver, MB", "turn": 0, "value": _resident()}
    yield {"what": f"of it for {SHARDS:,} shards, MB", "turn": 0, "value": _resident() - before}


def _resident() -> float:
    """Most megabytes so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def _worker() -> Any:
    def remote(job: Any, known: Any, asked: Any) -> Iterator[Any]:
        return ((place, shard, "file", bytes(25_000)) for place, shard in asked)

    return SimpleNamespace(finished=SimpleNamespace(options=lambda **_: SimpleNamespace(remote=remote)))


def _made_up() -> Any:
    error = type("RayError", (Exception,), {})
    kinds = SimpleNamespace(RayError=error, RayTaskError=error, ActorDiedError=error)
    return SimpleNamespace(wait=lambda some, **_: (some[:1], some[1:]), get=lambda result: result, exceptions=kinds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["speed", "memory"])
    parser.add_argument("--turns", type=int, default=2)
    given, load = parser.parse_args(), round(os.getloadavg()[0], 1)
    parts: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {"memory": memory, "speed": partial(speed, given.turns)}
    rows = [row for name, part in parts.items() if given.only in (None, name) for row in part()]
    table = pd.DataFrame(rows).assign(
        processor=processor(),
        cores=os.cpu_count(),
        torch=torch.__version__,
        ray=installed("ray"),
        commit=commit(),
        load_before=load,
        load_after=round(os.getloadavg()[0], 1),
    )
    if given.only != "memory":
        table.to_csv(Path(__file__).with_name("scale.csv"), index=False)
    print(table.groupby("what", sort=False)["value"].median())


if __name__ == "__main__":
    main()
