"""What a command costs before it does anything: processor seconds of whole processes, beside importing torch and timm.

    python benchmarks/startup.py     # prints the table, writes benchmarks/startup.csv

In each round every process runs once, after one round that fills the caches; the figure is the median over rounds.
"""

import csv
import os
import resource
import statistics
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from conditions import commit, installed, processor

ROUNDS = 7
OUT = Path(__file__).with_suffix(".csv")
TOOL = (sys.executable, "-m", "robustbench_twicing")
REFERENCE = "import torch, timm"
COMPLETION = {"_TWICING_BENCH_COMPLETE": "complete_bash", "COMP_WORDS": "twicing-bench co", "COMP_CWORD": "1"}
COMMANDS: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    REFERENCE: ((sys.executable, "-c", REFERENCE), {}),
    "import typer, rich": ((sys.executable, "-c", "import typer, rich.console"), {}),
    "--help": ((*TOOL, "--help"), {}),
    "TAB after `co`": (
        (sys.executable, "-c", "from robustbench_twicing.cli.app import app; app(prog_name='twicing-bench')"),
        COMPLETION,
    ),
    "report of a finished run": ((*TOOL, "report", "run"), {}),
    "compare a finished run": ((*TOOL, "compare", "run"), {}),
    "attack --attack fgsm --limit 50": (
        (*TOOL, "attack", "--model", "deit", "--attack", "fgsm", "--limit", "50", "--device", "cpu", "--fresh", "-q"),
        {},
    ),
}


def processor_seconds(command: tuple[str, ...], settings: dict[str, str], folder: str) -> float:
    """User and system time of a process and all that it starts."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    compiled = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}  # as installed
    subprocess.run(command, cwd=folder, env=compiled | settings, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    with TemporaryDirectory() as folder:
        attacked = ("attack", "--model", "deit", "--model", "deit-tw", "--attack", "fgsm", "--limit", "100", "-q")
        subprocess.run(
            (*TOOL, *attacked, "--device", "cpu", "--out", "run"), cwd=folder, capture_output=True, check=True
        )
        taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
        for number in range(ROUNDS + 1):
            for name, (command, settings) in COMMANDS.items():
                seconds = processor_seconds(command, settings, folder)
                if number:
                    taken[name].append(seconds)
    versions = {name: installed(name) for name in ("torch", "timm", "scipy", "pandas", "typer", "pydantic")}
    said = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "commit": commit(),
        "cpu": processor(),
        "load": round(os.getloadavg()[0], 1),
        **versions,
    }
    rows = [
        {
            "command": name,
            "processor_seconds": round(statistics.median(times), 3),
            "lowest": round(min(times), 3),
            "of_import_torch_timm": round(
                statistics.median(one / other for one, other in zip(times, taken[REFERENCE], strict=True)), 3
            ),
            **said,
        }
        for name, times in taken.items()
    ]
    with OUT.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print(f"{row['command']:34} {row['processor_seconds']:7.2f} s {row['of_import_torch_timm']:6.2f} × {REFERENCE}")


if __name__ == "__main__":
    main()
