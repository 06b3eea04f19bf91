"""Images per second of the attack engine: ours beside torchattacks, foolbox, ART and bare loops.

    pip install -e '.[bench]'
    OMP_WAIT_POLICY=active python benchmarks/attacks.py                # everything below that suits the device
    python benchmarks/attacks.py pgd spsa --device cuda --craft bfloat16

Measurements: pgd, unbreakable, spsa, fgsm, memory, batches, formats, deit-tiny (README.md says what each shows). Each
one gives all candidates the same weights and the same images in one process: ours as the tool loads them, peers in the
network that timm makes of them, and once more ("our network") in ours. They take turns, the first turn is a warm-up,
and what counts is the median over the turns of the ratio within a turn. Their models count the images that they
evaluate and the gradients that reach them. Beside the speed stands the final verdict on every image, given for all
candidates by the same float32 model. A turn during which other processes took more of the machine than --others is
repeated. On a machine that is never quiet, take one thread and believe the processor seconds: with more threads than
free cores they wait for each other, and the waiting counts.

The rows go to attacks-DEVICE-torchVERSION.csv; those of measurements that were not asked for stay.
"""

import argparse
import csv
import os
import platform
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import torch
from attack_speed import batches, deit_tiny, fgsm, formats, memory, pgd, spsa, unbreakable
from conditions import commit, device_name, installed

HERE = Path(__file__).parent

MEASUREMENTS: Mapping[str, Callable[[argparse.Namespace], Iterator[dict[str, object]]]] = {
    "pgd": pgd.rows,
    "unbreakable": unbreakable.rows,
    "spsa": spsa.rows,
    "fgsm": fgsm.rows,
    "memory": memory.rows,
    "batches": batches.rows,
    "formats": formats.rows,
    "deit-tiny": deit_tiny.rows,
}


def conditions(arguments: argparse.Namespace) -> dict[str, object]:
    """What the numbers depend on, for every row."""
    packages = ("torch", "timm", "torchattacks", "foolbox", "adversarial-robustness-toolbox")
    return {
        "turns": arguments.turns,
        "device": device_name(arguments.device),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", ""),
        "load_at_start": round(os.getloadavg()[0], 1),
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "commit": commit(),
        "python": platform.python_version(),
        **{package: installed(package) for package in packages},
    }


def write(path: Path, rows: list[dict[str, object]]) -> None:
    """Replace the rows of the same measurements, keep the others."""
    measured = {row["measurement"] for row in rows}
    kept: list[dict[str, object]] = []
    if path.exists():
        with path.open(newline="") as file:
            kept = [dict(row) for row in csv.DictReader(file) if row["measurement"] not in measured]
    order = list(MEASUREMENTS)
    table = sorted(kept + rows, key=lambda row: order.index(str(row["measurement"])))
    columns = list(dict.fromkeys(column for row in table for column in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)


def line(row: Mapping[str, object]) -> str:
    """A row for the console."""
    head = f"{row['measurement']:12} {row['model']:26} {row.get('weights', ''):9} {row.get('eps', ''):6} "
    head += f"{row['candidate']:42} batch {row['batch']!s:4}"
    if "peak_mib" in row:
        return f"{head} {row['peak_mib']:>8} MiB, {row['peak_over_forward_and_gradient']} of one forward and gradient"
    rate = f"{row['images_per_second']:>9} images/s"
    if "ours_over_this" not in row:
        return f"{head} {rate}, best/this {row['best_over_this']}"
    ratio = f"ours/this {row['ours_over_this']} ({row['ours_over_this_lowest']}-{row['ours_over_this_highest']})"
    ratio += f", processor {row['ours_over_this_processor']}"
    verdicts = f"broken {row['broken']} (ours only {row['broken_by_ours_only']}, this {row['broken_by_this_only']})"
    return f"{head} {rate} {ratio}  {row['forwards']} / {row['backwards']}  {verdicts}  others {row['others_share']}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measurement", nargs="*", metavar="MEASUREMENT", help=f"of {', '.join(MEASUREMENTS)}")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch, on the CPU")
    parser.add_argument("--turns", type=int, default=5, help="that count, after the warm-up")
    parser.add_argument("--others", type=float, default=0.06, help="share of the machine that spoils a turn")
    parser.add_argument("--batch", type=int, help="ours and the bare loop's; without it, the fastest")
    parser.add_argument("--craft", choices=["bfloat16", "float16"], help="a candidate more: crafting in this precision")
    parser.add_argument("--compile", action="store_true", help="candidates more: crafting with torch.compile")
    parser.add_argument("--images", type=int, default=256, help="digits")
    parser.add_argument("--large-images", type=int, help="images of 224 pixels; 16 or, on CUDA, 256")
    parser.add_argument("--spsa-images", type=int, default=8)
    parser.add_argument("--spsa-steps", type=int, default=3, help="of 40; images per second are scaled to 40")
    parser.add_argument("--out", type=Path, help="CSV; without it, one named by device and version of torch")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.measurement) - set(MEASUREMENTS))
    if unknown:
        parser.error(f"unknown measurement {', '.join(unknown)}; there are {', '.join(MEASUREMENTS)}")
    torch.set_num_threads(arguments.threads)
    name = re.sub(r"[^a-z0-9]+", "-", f"{arguments.device.partition(':')[0]} {device_name(arguments.device)}".lower())
    out = arguments.out or HERE / f"attacks-{name.strip('-')}-torch{torch.__version__.partition('+')[0]}.csv"
    chosen = arguments.measurement or [
        each for each in MEASUREMENTS if each != "deit-tiny" or arguments.device != "cpu"
    ]
    for measurement in chosen:
        rows = []
        for row in MEASUREMENTS[measurement](arguments):
            rows.append(row | conditions(arguments))
            print(line(row), flush=True)
        write(out, rows)


if __name__ == "__main__":
    main()
