"""Seconds per image of the nineteen corruptions: ours, and imagecorruptions' wheel and newer source tree.

    python benchmarks/corruptions.py [--tree PATH]     # writes benchmarks/corruptions.csv

PATH is a checkout of github.com/bethgelab/imagecorruptions, whose glass blur is compiled by numba; it carries the same
version number as the wheel. All take turns on the same photographs, so a busy machine slows them alike; the ratio is
taken within each turn, and its median over the turns is what counts. The first turn of each is a warm-up. In its turn
each works for a third of a second or longer: ours on the whole batch at once, again and again, the peer on one picture
after the other, as it must. Neither makes the JPEG round trip of ImageNet-C's files; its cost has a row of its own.

Beside the seconds on the clock stand those of the processor, summed over threads. With more runnable processes than
cores the clock favours whoever runs for less than a time slice at once, which is the peer; then trust the processor's.
"""

import argparse
import csv
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from conditions import commit, installed, processor
from sklearn.datasets import load_sample_images

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from robustbench_twicing.engine.corruptions import corrupt
from robustbench_twicing.engine.corruptions.jpeg import jpeg_round_trip
from robustbench_twicing.spec.corruptions import CORRUPTIONS
from tests.oracles.corruptions import peer

HERE = Path(__file__).parent


def photographs(count: int, side: int) -> np.ndarray:
    """(count, side, side, 3) uint8: different parts of two photographs."""
    sources = load_sample_images().images
    steps = [(index * 7 % (427 - side), index * 13 % (640 - side), sources[index % 2]) for index in range(count)]
    return np.stack([source[top : top + side, left : left + side] for top, left, source in steps])


Cost = tuple[float, float]
"""Seconds for each image: on the clock, and of the processor."""


def cost(run: Callable[[int], object], device: torch.device, images: int = 1) -> Cost:
    """Cost of each image, calling `run`, which works on `images` of them, with 0, 1, ... for a third of a second."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    clock, processor, calls = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - clock < 1 / 3:
        run(calls)
        calls += 1
        if device.type == "cuda":
            torch.cuda.synchronize()
    return (time.perf_counter() - clock) / calls / images, (time.process_time() - processor) / calls / images


def _one_by_peer(module: Any, pictures: Any, name: str, severity: int, index: int) -> Any:
    return peer.corrupt(module, pictures[index % len(pictures)], name, severity)


def measure(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """One row for each corruption and implementation: milliseconds per image, and ours as a multiple of them."""
    device = torch.device(arguments.device)
    pictures = photographs(arguments.batch, arguments.side)
    images = (torch.from_numpy(pictures).permute(0, 3, 1, 2).to(torch.float32) / 255).contiguous().to(device)
    levels = (images * 255).round_()
    modules = {"wheel": peer.load()}
    if arguments.tree:
        modules["tree"] = peer.load(arguments.tree)
    names = arguments.corruption or list(CORRUPTIONS)
    costs: dict[tuple[str, str], list[Cost]] = {}
    for turn in range(arguments.turns + 1):
        for name in names:
            turns = {"ours": cost(partial(corrupt, images, name, arguments.severity), device, len(images))}
            for who, module in modules.items():
                one = partial(_one_by_peer, module, pictures, name, arguments.severity)
                turns[who] = cost(one, device)
            for who, each in turns.items():
                costs.setdefault((name, who), []).append(each)
            print(f"\rturn {turn}: {name:20}", end="", file=sys.stderr, flush=True)
        costs.setdefault((ROUND_TRIP, "ours"), []).append(cost(lambda _: round_trips(levels), device, len(images)))
    print(file=sys.stderr)
    costs = {key: each[1:] for key, each in costs.items()}
    for who in ("ours", *modules):
        costs["sum", who] = [
            (sum(cost[0] for cost in turn), sum(cost[1] for cost in turn))
            for turn in zip(*(costs[name, who] for name in names), strict=True)
        ]
    return [row(name, who, each, costs[name, "ours"]) for (name, who), each in costs.items()]


ROUND_TRIP = "(jpeg round trip, quality 85)"


def round_trips(levels: torch.Tensor) -> None:
    """The JPEG round trip alone, in the portions that `corrupt` works in. Overwrites `levels`."""
    for part in levels.split(8):
        jpeg_round_trip(part, 85)


def row(name: str, who: str, costs: list[Cost], ours: list[Cost]) -> dict[str, object]:
    values: dict[str, object] = {"corruption": name, "who": who}
    for which, clock in enumerate(("clock", "processor")):
        each = [1000 * cost[which] for cost in costs]
        ratios = [own[which] / cost[which] for own, cost in zip(ours, costs, strict=True)]
        for what, numbers, digits in ((f"{clock}_ms", each, 3), (f"ours_over_this_{clock}", ratios, 3)):
            values[what] = round(statistics.median(numbers), digits)
            values[f"{what}_lowest"] = round(min(numbers), digits)
            values[f"{what}_highest"] = round(max(numbers), digits)
    return values


def conditions(arguments: argparse.Namespace) -> dict[str, object]:
    """What the numbers depend on, for every row."""
    device = torch.device(arguments.device)
    names = ("numpy", "scipy", "scikit-image", "opencv-python", "pillow", "numba", "imagecorruptions")
    return {
        "severity": arguments.severity,
        "side": arguments.side,
        "batch": arguments.batch,
        "turns": arguments.turns,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else device.type,
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "cpu": f"{processor()}, {os.cpu_count()} cores",
        "load_at_start": arguments.load,
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{name.replace("-", "_"): installed(name) for name in names},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tree", type=Path, help="a checkout of bethgelab/imagecorruptions")
    parser.add_argument(
        "--corruption", action="append", choices=list(CORRUPTIONS), help="only this one; may be repeated"
    )
    parser.add_argument("--severity", type=int, default=3)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--batch", type=int, default=64)
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
    line = "{corruption:30} {who:6} {clock_ms:9.3f} ms (processor {processor_ms:9.3f})  "
    line += "ours/this {ours_over_this_clock:.3f} ({ours_over_this_processor:.3f})"
    for measured in rows:
        print(line.format(**measured))


if __name__ == "__main__":
    main()
