"""Kill -9 a digits plan at random moments, resume it each time, and check that nothing is lost, doubled or changed.

One kill in five comes at any moment of the process, most of which goes into importing torch; the others come at any
moment of its work.

    python benchmarks/kill_storm.py                # fifty kills, a few minutes on two cores
    python benchmarks/kill_storm.py --kills 5 --seed 1
    python benchmarks/kill_storm.py --executor ray # workers of a Ray cluster of this machine compute; half of the kills
                                                   # are of one of them, after which the run must go on by itself

A plan that comes to its end between two kills is checked and begun anew. Exit code 1 if anything is wrong.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

PLAN = """
models = ["deit", "deit-tw"]
[[attacks]]
names = ["{attack}"]
eps = ["1/255", "2/255", "4/255"]
"""
ATTACK = {"local": "fgsm", "ray": "pgd"}
"""A cluster takes seconds to start and to end; PGD's work is long enough that most kills fall into it."""
RECORDS = 2 * 4 * 597


MARK = f"KILL_STORM_{os.getpid()}"
"""In the environment of every process that is started here, so that no other is killed."""


def begin(place: Path, name: str, executor: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "robustbench_twicing", "run", "plan.toml", "--fresh", "--quiet", "--out", name]
    return subprocess.Popen(
        [*command, "--executor", executor],
        cwd=place,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, MARK: "1"},
    )


def workers() -> list[int]:
    """The processes of Ray's workers that compute for us (Linux)."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            ours = MARK.encode() in (place / "environ").read_bytes()
            if ours and (place / "cmdline").read_bytes().startswith(b"ray::Worker"):
                found.append(int(place.name))
    return sorted(found)


def phase(run: Path, begun: int) -> str:
    """Where a run that began at `begun` (ns) was when it was killed."""
    if not at_work(run, begun):
        return "starting"
    return "finishing" if json.loads((run / "run.json").read_text())["finished"] else "working"


def at_work(run: Path, begun: int) -> bool:
    """Whether a run that began at `begun` (ns) has written its manifest."""
    with suppress(FileNotFoundError):
        return (run / "run.json").stat().st_mtime_ns >= begun
    return False


def wait_for_work(process: "subprocess.Popen[bytes]", run: Path, begun: int) -> None:
    while process.poll() is None and not at_work(run, begun):
        time.sleep(0.005)


def faults(run: Path, expected: bytes) -> list[str]:
    """What is wrong with a run that was killed and resumed to its end."""
    found = []
    if (run / "summary.csv").read_bytes() != expected:
        found.append("summary.csv differs from that of the uninterrupted run")
    records = pd.concat([pd.read_parquet(file) for file in run.glob("records/*/*.parquet")])
    twice = int(records.duplicated(["model", "threat", "sample_id"]).sum())
    if twice:
        found.append(f"{twice} record(s) twice")
    if len(records) - twice != RECORDS:
        found.append(f"{RECORDS - len(records) + twice} record(s) lost")
    damaged = len(list(run.glob("records/*/*.damaged")))
    if damaged:
        found.append(f"{damaged} shard(s) damaged: a half-written file had its final name")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--executor", choices=["local", "ray"], default="local")
    arguments = parser.parse_args()
    moments, wrong, ends, phases = random.Random(arguments.seed), list[str](), 0, Counter[str]()
    with TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "plan.toml").write_text(PLAN.format(attack=ATTACK[arguments.executor]))
        began = time.monotonic()
        process = begin(place, "whole", arguments.executor)
        wait_for_work(process, place / "whole", time.time_ns())
        working = time.monotonic()
        if process.wait():
            raise SystemExit("the uninterrupted run failed")
        duration, work = time.monotonic() - began, time.monotonic() - working
        expected, run = (place / "whole" / "summary.csv").read_bytes(), place / "killed"
        print(f"uninterrupted: {duration:.1f} s, {work:.1f} s of it at work", flush=True)
        while phases.total() < arguments.kills:
            process, begun = begin(place, "killed", arguments.executor), time.time_ns()
            longest = duration
            if moments.random() < 0.8:
                wait_for_work(process, run, begun)
                longest = work
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=longest * moments.random())
            alive = process.poll() is None
            if alive and arguments.executor == "ray" and moments.random() < 0.5 and (found := workers()):
                os.kill(moments.choice(found), signal.SIGKILL)
                phases["a worker"] += 1
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=longest * moments.random())
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kind = phase(run, begun)
                phases[kind] += 1
                shards = len(list(run.glob("records/*/*.parquet")))
                print(f"kill {phases.total()}: while {kind}, {shards} shards finished", flush=True)
            elif process.returncode:
                wrong.append(f"a resumed run ended with exit code {process.returncode}")
            else:
                ends += 1
                wrong += faults(run, expected)
                shutil.rmtree(run)
        if begin(place, "killed", arguments.executor).wait():
            wrong.append("the last resumed run failed")
        else:
            ends += 1
            wrong += faults(run, expected)
    kinds = ", ".join(f"{count} while {kind}" for kind, count in phases.items())
    print(f"{phases.total()} kills ({kinds}); {ends} run(s) resumed to their end")
    print("\n".join(wrong) if wrong else "every summary.csv equal, no record twice, none lost")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
