"""Images per second of training: our loop against a bare loop of torch on timm's parts, on the same JPEGs.

    python benchmarks/train.py                       # writes benchmarks/train.csv; vit_tiny, 224 pixels
    python benchmarks/train.py --turns 2 --updates 2

Both have the network, augmentation, Mixup, optimizer, learning rate and average of the recipe `deit`, in batches of
--batch images in float32 on the CPU, and read in the process that trains, so that processor time is all of it. The bare
loop does nothing else: no draws by sample, no checkpoints, no look for images that cannot be read, no progress. They
take turns, and each turn's first update is not counted. What is compared is the ratio within a pair of turns. Of each,
a process that does nothing else says the most memory that it held.
"""

import argparse
import csv
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import timm
import torch
from conditions import commit, processor
from PIL import Image
from timm.data import ImageDataset
from torch.utils.data import DataLoader

from robustbench_twicing.catalog.recipes import training_recipe
from robustbench_twicing.data.training import training_folder
from robustbench_twicing.spec.training import TimmAugmentation
from robustbench_twicing.train.folder import FolderData, augmentation_of
from robustbench_twicing.train.in_turn import job_of
from robustbench_twicing.train.job import ONE_CPU, Job
from robustbench_twicing.train.loop import train
from robustbench_twicing.train.parts import average_of, learning_rates, loss_of, mixing_of, network_of, optimizer_of

MODEL = "vit_tiny_patch16_224"
COLUMNS = (
    *("what", "images_per_second", "cpu_ms_per_image", "lowest_cpu_ms", "highest_cpu_ms"),
    *(
        "times_bare_by_processor_time",
        "times_bare_by_the_clock",
        "peak_mb",
        "times_bare_memory",
        "turns",
        "images_a_turn",
        "batch",
        "model",
    ),
    *("date", "commit", "cpu", "threads", "load_at_start", "python", "torch", "timm"),
)


class Speed(NamedTuple):
    """Of a turn."""

    images_per_second: float
    cpu_ms_per_image: float


class Clock:
    """From the first update to the last."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, float]] = []

    def mark(self) -> None:
        """An update is done."""
        self.marks.append((time.perf_counter(), time.process_time()))

    def speed(self, batch: int) -> Speed:
        """Without the first update."""
        images = batch * (len(self.marks) - 1)
        seconds, used = (self.marks[-1][place] - self.marks[0][place] for place in (0, 1))
        return Speed(images / seconds, 1000 * used / images)


def write_jpegs(root: Path, images: int) -> None:
    """Noise as coarse as photographs, 500 x 375 as ImageNet's middle; two classes."""
    draws = np.random.default_rng(0)
    for split, count in (("train", images), ("val", 2)):
        for number in range(count):
            folder = root / split / f"class{number % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            small = Image.fromarray(draws.integers(0, 256, (47, 62, 3)).astype(np.uint8))
            small.resize((500, 375), Image.Resampling.BICUBIC).save(folder / f"{number}.jpg", quality=92)


def ours(job: Job) -> Speed:
    """Our loop, all of it."""
    clock = Clock()
    train(job, ONE_CPU, progress=lambda done: clock.mark())
    return clock.speed(job.recipe.batch)


def bare(job: Job, root: Path) -> Speed:
    """The loop that a tutorial would write."""
    recipe, clock = job.recipe, Clock()
    assert isinstance(recipe.augmentation, TimmAugmentation)
    network = network_of(job)
    optimizer, average, mix = optimizer_of(recipe, network), average_of(recipe, network), mixing_of(job)
    rates = learning_rates(recipe, optimizer, job.updates_per_epoch)
    dataset = ImageDataset(str(root / "train"), transform=augmentation_of(recipe.augmentation, network))
    assert mix is not None
    assert average is not None
    for update, (images, labels) in enumerate(DataLoader(dataset, recipe.batch, shuffle=True, drop_last=True)):
        rates(update)
        mixed, targets = mix(images, labels)
        loss = loss_of(recipe, network(mixed), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average.update(network)
        clock.mark()
    return clock.speed(recipe.batch)


def job_at(root: Path, batch: int) -> Job:
    """The training that both do."""
    said = training_recipe("deit")
    augmentation = said.augmentation.model_copy(update={"repeats": 1})
    recipe = said.model_copy(update={"epochs": 1, "batch": batch, "augmentation": augmentation})
    return job_of(MODEL, FolderData("noise", training_folder(root)), recipe, 0)


def peak_mb(name: str, root: Path, batch: int) -> float:
    """The most memory that a process holds which trains once and does nothing else."""
    words = [sys.executable, __file__, "--alone", name, "--root", str(root), "--batch", str(batch)]
    said = subprocess.run(words, check=True, capture_output=True, text=True)
    return float(said.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--updates", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--alone", choices=("ours", "bare loop"), help="(of a process that is measured)")
    parser.add_argument("--root", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    asked = parser.parse_args()
    load = os.getloadavg()[0]
    if asked.alone:
        job = job_at(asked.root, asked.batch)
        ours(job) if asked.alone == "ours" else bare(job, asked.root)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    turns: dict[str, list[Speed]] = {"ours": [], "bare loop": []}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_jpegs(root, asked.batch * asked.updates)
        job = job_at(root, asked.batch)
        for turn in range(asked.turns):
            for name in list(turns)[:: 1 if turn % 2 else -1]:  # neither is always the first
                turns[name].append(ours(job) if name == "ours" else bare(job, root))
            print(turn, *(f"{name}: {speeds[-1]}" for name, speeds in turns.items()), flush=True)
        peaks = {name: statistics.median(peak_mb(name, root, asked.batch) for _ in range(3)) for name in turns}
    pairs = list(zip(turns["ours"], turns["bare loop"], strict=True))
    ratio = statistics.median(other.cpu_ms_per_image / own.cpu_ms_per_image for own, other in pairs)
    by_clock = statistics.median(own.images_per_second / other.images_per_second for own, other in pairs)
    with asked.out.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)
        for name, speeds in turns.items():
            used = [speed.cpu_ms_per_image for speed in speeds]
            mine = name == "ours"
            rows.writerow([
                name, round(statistics.median(speed.images_per_second for speed in speeds), 2),
                round(statistics.median(used), 1), round(min(used), 1), round(max(used), 1),
                round(ratio, 3) if mine else 1, round(by_clock, 3) if mine else 1,
                round(peaks[name]), round(peaks[name] / peaks["bare loop"], 3), asked.turns,
                asked.batch * (asked.updates - 1), asked.batch, MODEL, datetime.now(UTC).date(), commit(), processor(),
                torch.get_num_threads(), round(load, 1), platform.python_version(), torch.__version__, timm.__version__,
            ])  # fmt: skip
    print(f"ours is {ratio:.3f} times the bare loop by processor time, {by_clock:.3f} by the clock (medians of pairs)")
    print(f"memory: {peaks['ours']:.0f} MB beside {peaks['bare loop']:.0f} MB")


if __name__ == "__main__":
    main()
