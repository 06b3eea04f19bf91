"""Work that torch's own threads share badly: pieces too small to split again, one on every core of the CPU."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier
from typing import TypeVar

import torch

Piece = TypeVar("Piece")
Result = TypeVar("Result")


def usable_cores() -> int:
    """That this process may compute on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_on(cores: int) -> int:
    """As many as cores, or as few as OMP_NUM_THREADS asks for."""
    said = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return min(cores, int(said)) if said.isdecimal() and int(said) else cores


def on_every_core(work: Callable[[Piece], Result], pieces: Sequence[Piece], device: torch.device) -> Iterator[Result]:
    """`work(piece)` for each piece, in order; on a CPU as many at a time as torch has threads, each on one core.

    Waking a thread for a part of an operation costs as much as the part where operations take microseconds. Within
    `work` torch has one thread, so that pieces do not spread themselves once more, and its usual modes (grad,
    autocast). What `work` raises is raised here.
    """
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    return map(work, pieces) if min(threads, len(pieces)) < 2 else _pool(threads).map(work, pieces)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return lone_threads(threads, "piece")


def lone_threads(threads: int, name: str) -> ThreadPoolExecutor:
    """Threads on which torch computes without help from others.

    Helpers that have nothing to do are no help to anybody: they wait in a loop, and the more of them there are, the
    sooner those of other threads go to sleep between two operations.
    """
    own = torch.get_num_threads()
    met = Barrier(threads + 1)

    def begin() -> None:
        torch.get_num_threads()  # torch sets the number when a thread first asks: what is set here must come later
        torch.set_num_threads(1)  # of this thread, and of threads that have not asked torch for their number yet
        met.wait()

    pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
    for _ in range(threads):
        pool.submit(begin)
    met.wait()
    torch.set_num_threads(own)  # so for those threads, this is put right again
    return pool
