"""Ten models under twenty threats on 50,000 images: how long `compare --arm` takes, and how much memory.

    python benchmarks/compare_arms.py     # prints, and writes benchmarks/compare_arms.csv

The ten million records are made up: two arms of five seeds. The command runs in a process of its own.
"""

import argparse
import csv
import os
import resource
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from conditions import commit, installed, processor

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.records_builder import cell, run_folder

OUT = Path(__file__).with_suffix(".csv")
SEEDS, THREATS = 5, 20


def made_up(images: int) -> pd.DataFrame:
    """Records of two arms, the second one point better; under each threat a few points less than under the last."""
    draw = np.random.default_rng(0)
    ease = draw.beta(4, 1, images)
    threats = ["clean", *(f"pgd-linf-{size}/255" for size in range(1, THREATS))]
    names = [(f"{name}@s{seed}", gain) for name, gain in (("deit", 0.0), ("deit-tw", 0.01)) for seed in range(SEEDS)]
    return pd.concat(
        [
            cell(name, threat, draw.random(images) < ease + gain - 0.03 * number)
            for name, gain in names
            for number, threat in enumerate(threats)
        ],
        ignore_index=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--keep", type=Path, help="Make the run here, and keep it.")
    options = parser.parse_args()
    with TemporaryDirectory() as place:
        run = (options.keep or Path(place)) / "run"
        if not run.exists():
            run_folder(run, made_up(options.images))
        arms = ("--arm", "deit=deit@*", "--arm", "deit-tw=deit-tw@*")
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "robustbench_twicing", "compare", str(run), *arms, "--json"],
                       stdout=subprocess.DEVNULL, check=True)  # fmt: skip
        seconds = time.perf_counter() - started
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    row = {
        "records": 2 * SEEDS * THREATS * options.images,
        "seconds": round(seconds, 1),
        "processor_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_gib": round(used.ru_maxrss / 2**20, 2),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "commit": commit(),
        "cpu": f"{processor()}, {os.cpu_count()} cores",
        "load_at_end": round(os.getloadavg()[0], 1),
        "pandas": installed("pandas"),
        "pyarrow": installed("pyarrow"),
    }
    with OUT.open("w", newline="") as file:
        writer = csv.DictWriter(file, row, lineterminator="\n")
        writer.writeheader()
        writer.writerow(row)
    print(row)


if __name__ == "__main__":
    main()
