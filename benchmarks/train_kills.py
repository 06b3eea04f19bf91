"""Kill -9 a training at random moments and begin it again each time: its weights are those of one that ran through.

    python benchmarks/train_kills.py               # ten kills and three Ctrl-C, minutes on one core
    python benchmarks/train_kills.py --kills 3 --seed 1

Moments are spread over the work, not over the seconds in which torch is imported. Exit code 1 if anything is wrong.
"""

import argparse
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from robustbench_twicing.catalog.locate import definitions

MODEL = "deit_digits_patch8_32+twicing"
_INTERRUPTED = 130


def write_data(place: Path) -> None:
    """120 pictures in two classes, and the recipe `tiny` with more epochs."""
    draws = np.random.default_rng(0)
    for split, count in (("train", 120), ("val", 8)):
        for number in range(count):
            folder = place / "data" / split / f"class{number % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            pixels = draws.integers(0, 256, (40, 48, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.jpg")
    text = (definitions("recipes") / "tiny.toml").read_text("utf-8")
    (place / "more.toml").write_text(text.replace("epochs = 2", "epochs = 12"), "utf-8")


def begin(place: Path, name: str) -> "subprocess.Popen[bytes]":
    """The same command each time."""
    options = ["--data-dir", "data", "--recipe", "more.toml", "--out", f"{name}.safetensors", "--device", "cpu"]
    options += ["--checkpoint-every", "0.1", "--workers", "1", "--quiet", "--model", MODEL]
    command = [sys.executable, "-m", "robustbench_twicing", "train", *options]
    return subprocess.Popen(command, cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def states(place: Path) -> list[str]:
    """Names of the checkpoints."""
    return sorted(path.name for path in (place / "killed.training").glob("checkpoint-*.pt"))


def stop(place: Path, process: "subprocess.Popen[bytes]", how: signal.Signals, wait: float) -> int | None:
    """Send the signal `wait` seconds after the process's first checkpoint; its exit code, None if it had ended."""
    before = states(place)
    while process.poll() is None and states(place) == before:
        time.sleep(0.005)
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=wait)
    if process.poll() is not None:
        return None
    process.send_signal(how)
    return process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--interrupts", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    moments, wrong, done = random.Random(asked.seed), list[str](), 0
    with TemporaryDirectory() as folder:
        place = Path(folder)
        write_data(place)
        if begin(place, "whole").wait():
            raise SystemExit("the training that was left alone failed")
        signals = [signal.SIGKILL] * asked.kills + [signal.SIGINT] * asked.interrupts
        moments.shuffle(signals)
        for how in signals:
            code = stop(place, begin(place, "killed"), how, moments.uniform(0, 3))
            if code is None:
                break
            done += 1
            if how == signal.SIGINT and code != _INTERRUPTED:
                wrong.append(f"Ctrl-C ended with exit code {code}")
            print(f"{done}: {how.name}, exit code {code}, {', '.join(states(place))}", flush=True)
        if begin(place, "killed").wait():
            wrong.append("the last one failed")
        for suffix in ("", "-ema"):
            one, other = (load_file(place / f"{name}{suffix}.safetensors") for name in ("whole", "killed"))
            if not all(torch.equal(one[key], other[key]) for key in one):
                wrong.append(f"weights{suffix} differ")
        if (place / "killed.training").exists():
            wrong.append("checkpoints are left behind")
    print(f"{done} interruptions")
    print("\n".join(wrong) if wrong else "weights and their moving average equal, bit for bit")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
