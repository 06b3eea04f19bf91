"""Everything that is to be known of a GPU, in one command and nine minutes, without a network.

    python benchmarks/gpu.py                       # on the card; writes to $OUT, or gpu-results
    python benchmarks/gpu.py --rehearse            # everything in small, on a CPU: it says nothing of speed
    python benchmarks/gpu.py --fetch-wheels DIR    # beforehand, elsewhere: what the machine with the card lacks

Each step below runs in a process of its own and within its own seconds: one that fails or is too slow loses what it had
not yet measured, and the others go on. After each of them `gpu.csv` (all rows) and `gpu.md` (a table for each step, the
goals, what failed) are written anew; profiles and one trace lie beside them.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gpu_steps.job import CARD, REHEARSAL, Job, Row

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 540.0
"""For everything."""


class Step(NamedTuple):
    module: str
    """In gpu_steps; imported in the step's own process."""
    function: str
    seconds: float

    @property
    def rows(self) -> Callable[[Job], Iterator[Row]]:
        found: Callable[[Job], Iterator[Row]] = getattr(import_module(f"gpu_steps.{self.module}"), self.function)
        return found


STEPS: Mapping[str, Step] = {
    "attacks": Step("speed", "rows", 140.0),
    "attention": Step("attention_paths", "rows", 75.0),
    "profiles": Step("profiles", "rows", 45.0),
    "corruptions": Step("corrupting", "rows", 70.0),
    "tests": Step("on_card", "rows", 70.0),
    "memory": Step("memory_use", "rows", 35.0),
    "decode": Step("reading", "rows", 50.0),
    "compiled": Step("speed", "compiled_rows", 55.0),
}
"""In this order, so that what matters most is there if time runs out."""
NOT_REHEARSED = ("compiled",)
"""Unless asked for by name: on a CPU compiling takes longer than all the rest."""


def here(name: str, job: Job, rows: Path) -> None:
    """A step in this process; each row goes to the file `rows` as soon as it is known."""
    with rows.open("a", encoding="utf-8") as file:
        for row in STEPS[name].rows(job):
            file.write(json.dumps(row) + "\n")
            file.flush()


def apart(command: list[str], seconds: float, rows: Path) -> tuple[list[Row], str | None]:
    """A command in a process of its own, with all that it starts: the rows that it left, and what went wrong."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with rows.with_suffix(".log").open("w+", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        problem = None
        try:
            if process.wait(seconds):
                problem = f"failed with exit code {process.returncode}"
        except subprocess.TimeoutExpired:
            problem = f"stopped after {seconds:.0f} s; rows that are missing were not measured"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        log.seek(0)
        said = log.read().strip().splitlines()[-12:]
    found = [json.loads(line) for line in rows.read_text("utf-8").splitlines()] if rows.exists() else []
    return found, problem and "\n".join([problem, *said])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"of {', '.join(STEPS)}; all without one")
    parser.add_argument("--rehearse", action="store_true", help="in small, on a CPU")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT") or "gpu-results"), metavar="FOLDER")
    parser.add_argument("--fetch-wheels", type=Path, metavar="DIR", help="download what the machine lacks, and stop")
    parser.add_argument("--python", metavar="VERSION", help="with --fetch-wheels: the machine's Python, such as 3.12")
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=SECONDS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.steps) - set(STEPS))
    if unknown:
        parser.error(f"unknown step {', '.join(unknown)}; there are {', '.join(STEPS)}")
    if arguments.fetch_wheels:
        from gpu_steps.wheels import fetch

        fetch(arguments.fetch_wheels, arguments.python)
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    device, scale = ("cpu", REHEARSAL) if arguments.rehearse else ("cuda", CARD)
    if arguments.rows:
        here(arguments.steps[0], Job(device, scale, arguments.out, arguments.seconds), arguments.rows)
        return
    import torch

    if not arguments.rehearse and not torch.cuda.is_available():
        parser.error("torch finds no CUDA device here; --rehearse runs everything in small on a CPU")
    everything(arguments, device)


def everything(arguments: argparse.Namespace, device: str) -> None:
    """All steps that were asked for, each apart, and the report after each."""
    from gpu_steps.report import conditions, write

    began, found, problems = time.monotonic(), dict[str, list[Row]](), dict[str, str]()
    said = conditions(device)
    title = "Rehearsal on a CPU: its numbers mean nothing" if arguments.rehearse else f"Measured on {said['device']}"
    patience = 3 if arguments.rehearse else 1  # a busy CPU is no fault of a step
    for name in arguments.steps or [name for name in STEPS if not (arguments.rehearse and name in NOT_REHEARSED)]:
        left = patience * arguments.seconds - (time.monotonic() - began)
        seconds = min(patience * STEPS[name].seconds, left)
        if seconds < 5:
            problems[name] = "no time was left for it"
            continue
        with TemporaryDirectory() as folder:
            rows = Path(folder) / "rows.jsonl"
            command = [sys.executable, str(Path(__file__).resolve()), name, "--rows", str(rows)]
            command += ["--out", str(arguments.out), "--seconds", str(seconds)]
            started = time.monotonic()
            found[name], problem = apart(command + ["--rehearse"] * arguments.rehearse, seconds, rows)
        if problem:
            problems[name] = problem
        write(arguments.out, found, problems, said, title)
        took = time.monotonic() - started
        print(
            f"{name:12} {took:6.1f} s  {len(found[name]):3} rows  {(problem or '').partition(chr(10))[0]}", flush=True
        )
    write(arguments.out, found, problems, said, title)
    print(arguments.out / "gpu.md")
    if problems:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
