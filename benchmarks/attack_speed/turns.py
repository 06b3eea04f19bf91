"""Candidates take turns; what counts is the ratio within a turn."""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

from attack_speed.models import Counted, answers
from attack_speed.peers import OUR_NETWORK
from attack_speed.task import Candidate, Images, Task
from robustbench_twicing.machine.malloc import KEPT, M_MMAP_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, tell_glibc

Key = TypeVar("Key")


@dataclass
class Turn:
    """One run of one candidate."""

    seconds: float
    processor: float
    """Processor seconds of this process, all threads."""
    others: float
    """Share of the machine's processors that other processes took meanwhile; NaN where the kernel does not say."""

    @property
    def cost(self) -> float:
        """Seconds on the clock; with one thread those of the processor, which other processes do not change."""
        return self.seconds if torch.get_num_threads() > 1 or torch.cuda.is_available() else self.processor


def busy_seconds() -> float:
    """Processor seconds that the whole machine has spent so far."""
    if not Path("/proc/stat").exists():
        return float("nan")
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def timed(run: Callable[[], Images], device: torch.device) -> tuple[Turn, Images]:
    if device.type == "cuda":
        torch.cuda.synchronize()
    busy, processor, clock = busy_seconds(), time.process_time(), time.perf_counter()
    found = run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - clock
    processor = time.process_time() - processor
    others = max(0.0, busy_seconds() - busy - processor) / seconds / (os.cpu_count() or 1)
    return Turn(seconds, processor, others), found


ALONE = {M_MMAP_MAX: 2**16, M_MMAP_THRESHOLD: 2**25, M_TRIM_THRESHOLD: 2**26}
"""For the others' turns: the most that glibc, left alone, learns to keep in a process of theirs."""


def take_turns(
    candidates: Mapping[str, Candidate], task: Task, batch: int, arguments: argparse.Namespace
) -> tuple[dict[str, list[Turn]], dict[str, Images], dict[str, tuple[int, int, int]]]:
    """Turns of each candidate, what it found in the last one, and (calls, forwards, backwards) of that."""
    turns: dict[str, list[Turn]] = {name: [] for name in candidates}
    found, spent = {}, {}
    names, most = list(candidates), 4 * arguments.turns
    for number in range(most + 1):
        now = {}
        for name in names[number % len(names) :] + names[: number % len(names)]:
            counted = Counted(task.own if name.startswith("ours") or name.endswith(OUR_NETWORK) else task.model)
            given, candidate = replace(task, model=counted), candidates[name]
            torch.manual_seed(number)  # what peers draw from
            tell_glibc(KEPT if name.startswith("ours") else ALONE)
            now[name], found[name] = timed(partial(candidate, given, batch), task.device)
            spent[name] = counted.calls, counted.forwards, counted.backwards
        disturbed = max(turn.others for turn in now.values()) > arguments.others
        enough_left = most - number >= arguments.turns - len(turns[names[0]])
        if number == 0 or (disturbed and enough_left):
            continue
        for name, turn in now.items():
            turns[name].append(turn)
        if len(turns[names[0]]) == arguments.turns:
            break
    return turns, found, spent


def compared(
    measurement: str,
    task: Task,
    candidates: Mapping[str, Candidate],
    arguments: argparse.Namespace,
    batch: int,
    weights: str = "frozen",
    scaled: float = 1.0,
) -> Iterator[dict[str, object]]:
    """A row for each candidate. `scaled`: the whole attack takes that many times what was run."""
    turns, found, spent = take_turns(candidates, task, batch, arguments)
    count = len(task.images)
    fooled = {name: answers(task.own, images) != task.labels for name, images in found.items()}
    settings = task.threat.settings
    for name, each in turns.items():
        rates = [count / turn.seconds / scaled for turn in each]
        pairs = list(zip(each, turns["ours"], strict=True))
        calls, forwards, backwards = spent[name]
        yield {
            "measurement": measurement,
            "model": task.name,
            "weights": weights,
            "eps": str(task.threat.eps),
            "steps": settings.steps_taken,
            "candidate": name,
            "batch": batch if name.startswith(("ours", "bare")) else "",
            "images": count,
            **spread("images_per_second", rates, 4),
            **spread("ours_over_this", [turn.seconds / own.seconds for turn, own in pairs], 3),
            **spread("ours_over_this_processor", [turn.processor / own.processor for turn, own in pairs], 3),
            "model_calls": calls,
            "forwards": forwards,
            "backwards": backwards,
            "broken": int(fooled[name].sum()),
            "broken_by_ours_only": int((fooled["ours"] & ~fooled[name]).sum()),
            "broken_by_this_only": int((fooled[name] & ~fooled["ours"]).sum()),
            "largest_change_over_eps": round(float((found[name] - task.images).abs().max()) / (task.eps or 1.0), 6),
            "scaled_by": scaled,
            "others_share": round(statistics.median(turn.others for turn in each), 3),
        }


def raced(rates: Mapping[Key, Callable[[], float]], turns: int) -> Iterator[tuple[Key, dict[str, float]]]:
    """Of each, the images per second in turns, after a warm-up, and how many times that the fastest one makes."""
    found: dict[Key, list[float]] = {key: [] for key in rates}
    for turn in range(turns + 1):
        for key, rate in rates.items():
            measured = rate()
            if turn:
                found[key].append(measured)
    best = max(found.values(), key=statistics.median)
    for key, some in found.items():
        over = [b / r for b, r in zip(best, some, strict=True)]
        yield key, {**spread("images_per_second", some, 1), **spread("best_over_this", over, 3)}


def spread(what: str, numbers: list[float], digits: int) -> dict[str, float]:
    """Median, lowest and highest."""
    return {
        what: round(statistics.median(numbers), digits),
        f"{what}_lowest": round(min(numbers), digits),
        f"{what}_highest": round(max(numbers), digits),
    }
