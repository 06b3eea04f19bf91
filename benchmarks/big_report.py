"""Four models under ninety-six threats on 50,000 images: how long `report` takes, and how much memory.

    python benchmarks/big_report.py     # prints, and writes benchmarks/big_report.csv

The nineteen million records are made up: clean images and all of ImageNet-C, its extra corruptions too. A cell is one
shard, and in a second run shards of 256, as runs leave them (`--shards`). Beside it stand pandas reading the same files
and grouping them once, and `compare` of two of the models. Each is a process of its own.
"""

import argparse
import csv
import os
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

from robustbench_twicing.catalog.suites import suite_definition
from robustbench_twicing.results.manifest import Shard, samples_hash
from robustbench_twicing.results.store import RunFolder
from tests.records_builder import cell, run_folder

OUT = Path(__file__).with_suffix(".csv")
MODELS = {"deit": 0.0, "deit-tw": 0.01, "deit-nt": 0.005, "deit-tw-10": 0.008}
"""And how much easier images are for them."""
SUITE, CLASSES = "imagenet-c", 1000
PANDAS = """
import sys, pandas as pd
columns = ["model", "threat", "correct", "confidence", "loss", "brier"]
frame = pd.read_parquet(sys.argv[1] + "/records", columns=columns)
print(frame.groupby(["model", "threat"], sort=False).mean().to_csv())
"""


def threats() -> list[str]:
    """Clean images, and every corruption at every severity."""
    spec = suite_definition(SUITE).spec
    families = [*spec.families.values(), *spec.extra_families.values()]
    names = [name for family in families for name in family]
    return ["clean", *(f"{SUITE}:{name}-{severity}" for name in names for severity in spec.severities)]


def make(place: Path, images: int, shard: int) -> None:
    """Write a run of that many images in shards of that size."""
    draw = np.random.default_rng(0)
    ease, labels = draw.beta(4, 1, images), np.arange(images) % CLASSES
    ids = [f"val/n{label:08d}/{number:08d}" for number, label in enumerate(labels)]
    small = [cell(model, threat, [True], sample_id=ids[:1]) for model in MODELS for threat in threats()]
    manifest = RunFolder(run_folder(place, pd.concat(small, ignore_index=True))).manifest()
    folder, hashed = RunFolder(place), samples_hash(ids, labels.tolist())
    for entry in manifest.cells:
        for file in (place / "records" / entry.folder).glob("*"):
            file.unlink()
    entries = [
        entry.model_copy(update={"samples": images, "shard_size": shard, "samples_hash": hashed})
        for entry in manifest.cells
    ]
    for number, entry in enumerate(entries):
        chance = np.clip(ease + MODELS[entry.model] - 0.004 * (number % len(threats())), 0.02, 0.98)
        right = draw.random(images) < chance
        rows = cell(
            entry.model,
            entry.threat,
            right,
            label=labels,
            prediction=np.where(right, labels, (labels + 1) % CLASSES),
            sample_id=ids,
            confidence=chance * draw.random(images),
            loss=-np.log(chance),
            brier=2 * (1 - chance) ** 2,
            margin=chance - 0.5,
        )
        for start in range(0, images, shard):
            part = rows.iloc[start : start + shard]
            folder.write_shard(Shard(entry.folder, start, start + len(part)), part)
    data = {
        name: used.model_copy(update={"samples": images, "classes": CLASSES}) for name, used in manifest.data.items()
    }
    folder.write_manifest(manifest.model_copy(update={"cells": tuple(entries), "data": data}))


def measured(*command: str) -> dict[str, float]:
    """Seconds by the clock and of the processor, and GiB at the peak, of a process."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return {
        "seconds": round(time.perf_counter() - started, 1),
        "processor_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_gib": round(used.ru_maxrss / 2**20, 2),
        "load_at_end": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--shards", type=int, nargs="*", help="Sizes; default: whole cells, and 256.")
    parser.add_argument("--keep", type=Path, help="Make the runs here, and keep them.")
    options = parser.parse_args()
    ours = (sys.executable, "-m", "robustbench_twicing")
    found = []
    with TemporaryDirectory() as place:
        for shard in options.shards or [options.images, 256]:
            run = (options.keep or Path(place)) / f"run-{options.images}-{shard}"
            records = options.images * len(MODELS) * len(threats())
            if not run.exists():
                make(run, options.images, shard)
            html = f"--to={run}.html"
            commands = {
                "report": (*ours, "report", str(run), html),
                "compare": (*ours, "compare", "deit", "deit-tw", "--run", str(run)),
                "pandas": (sys.executable, "-c", PANDAS, str(run)),
            }
            for name, command in commands.items():
                found.append({"what": name, "records": records, "samples_per_shard": shard, **measured(*command)})
                print(found[-1], flush=True)
    about = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "commit": commit(),
        "cpu": f"{processor()}, {os.cpu_count()} cores",
        "pandas": installed("pandas"),
        "pyarrow": installed("pyarrow"),
    }
    with OUT.open("w", newline="") as file:
        writer = csv.DictWriter(file, found[0] | about, lineterminator="\n")
        writer.writeheader()
        writer.writerows(row | about for row in found)


if __name__ == "__main__":
    main()
