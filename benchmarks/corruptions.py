"""Seconds per image of the nineteen corruptions: ours, and imagecorruptions' wheel and newer source tree.

    python benchmarks/corruptions.py [--tree PATH]     # writes benchmarks/corruptions.csv

PATH is a checkout of github.com/bethgelab/imagecorruptions, whose glass blur is compiled by numba; it carries the same
version number as the wheel. All take turns on the same photographs, so a busy machine slows them alike; the ratio is
taken within each turn, and its median over the turns is what counts. The first turn of each is a warm-up. Ours gets the
whole batch at once, the peer one picture after the other, as it must; neither makes the JPEG round trip of ImageNet-C's
files, whose cost stands in a row of its own.
"""

import argparse
import csv
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_sample_images

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from robustbench_twicing.engine.corruptions import CORRUPTIONS, corrupt
from robustbench_twicing.engine.corruptions.jpeg import jpeg_round_trip
from tests.oracles.corruptions import peer

HERE = Path(__file__).parent


def photographs(count: int, side: int) -> np.ndarray:
    """(count, side, side, 3) uint8: different parts of two photographs."""
    sources = load_sample_images().images
    steps = [(index * 7 % (427 - side), index * 13 % (640 - side), sources[index % 2]) for index in range(count)]
    return np.stack([source[top : top + side, left : left + side] for top, left, source in steps])


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """Seconds that `run` takes, the device's queue included."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """One row for each corruption and implementation: seconds per image and the ratio to ours, with their spread."""
    device = torch.device(arguments.device)
    pictures = photographs(arguments.batch, arguments.side)
    images = (torch.from_numpy(pictures).permute(0, 3, 1, 2).to(torch.float32) / 255).contiguous().to(device)
    modules = {"wheel": peer.load()}
    if arguments.tree:
        modules["tree"] = peer.load(arguments.tree)
    timings: dict[tuple[str, str], list[float]] = {}

    def note(name: str, who: str, each: float, turn: int) -> None:
        if turn:
            timings.setdefault((name, who), []).append(each)

    for turn in range(arguments.turns + 1):
        for name in arguments.corruption or CORRUPTIONS:
            run = lambda name=name: corrupt(images, name, arguments.severity, seed=turn)  # noqa: B023
            note(name, "ours", seconds(run, device) / len(images), turn)
            for who, module in modules.items():
                # The wheel's glass blur is a Python loop over pixels: one picture says enough.
                count = 1 if (name, who) == ("glass_blur", "wheel") else arguments.peer_pictures
                run = lambda m=module, n=name, c=count: [peer.corrupt(m, p, n, arguments.severity) for p in pictures[:c]]
                note(name, who, seconds(run, device) / count, turn)
            print(f"\rturn {turn}: {name:20}", end="", file=sys.stderr, flush=True)
        levels = (images * 255).round_()
        note("(jpeg round trip, quality 85)", "ours", seconds(lambda: round_trips(levels), device) / len(images), turn)
    print(file=sys.stderr)
    rows = []
    for (name, who), measured in timings.items():
        ratios = [own / other for own, other in zip(timings[name, "ours"], measured, strict=True)]
        rows.append(row(name, who, measured, ratios))
    for who in ("ours", *modules):
        totals = [sum(timings[name, who][turn] for name in CORRUPTIONS if (name, who) in timings) for turn in range(arguments.turns)]
        own = [sum(timings[name, "ours"][turn] for name in CORRUPTIONS if (name, "ours") in timings) for turn in range(arguments.turns)]
        rows.append(row("sum", who, totals, [a / b for a, b in zip(own, totals, strict=True)]))
    return rows


def round_trips(levels: torch.Tensor) -> None:
    """The JPEG round trip alone, in the portions that `corrupt` works in."""
    for part in levels.split(3):
        jpeg_round_trip(part, 85)


def row(name: str, who: str, measured: list[float], ratios: list[float]) -> dict[str, object]:
    median = statistics.median(measured)
    return {
        "corruption": name,
        "who": who,
        "milliseconds_per_image": round(1000 * median, 3),
        "lowest": round(1000 * min(measured), 3),
        "highest": round(1000 * max(measured), 3),
        "ours_over_this": round(statistics.median(ratios), 3),
        "ratio_lowest": round(min(ratios), 3),
        "ratio_highest": round(max(ratios), 3),
    }


def conditions(arguments: argparse.Namespace) -> dict[str, object]:
    """What the numbers depend on, for every row."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    device = torch.device(arguments.device)
    names = ("numpy", "scipy", "scikit-image", "opencv-python", "pillow", "numba", "imagecorruptions")
    return {
        "severity": arguments.severity,
        "side": arguments.side,
        "batch": arguments.batch,
        "peer_pictures": arguments.peer_pictures,
        "turns": arguments.turns,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else device.type,
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit.stdout.strip(),
        "cpu": f"{cpu_name()}, {os.cpu_count()} cores",
        "load_at_start": arguments.load,
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{name.replace("-", "_"): installed(name) for name in names},
    }


def installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tree", type=Path, help="a checkout of bethgelab/imagecorruptions")
    parser.add_argument("--corruption", action="append", choices=list(CORRUPTIONS), help="only this one; may be repeated")
    parser.add_argument("--severity", type=int, default=3)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--peer-pictures", type=int, default=8, help="pictures that the peer is timed on in each turn")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=HERE / "corruptions.csv")
    arguments = parser.parse_args()
    arguments.load = round(os.getloadavg()[0], 1)
    torch.set_num_threads(arguments.threads)
    np.random.seed(0)  # noqa: NPY002 - imagecorruptions draws from numpy's global generator
    rows = [measured | conditions(arguments) for measured in measure(arguments)]
    with arguments.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for measured in rows:
        print("{corruption:30} {who:6} {milliseconds_per_image:9.3f} ms  ours/this {ours_over_this:.3f}".format(**measured))


if __name__ == "__main__":
    main()
