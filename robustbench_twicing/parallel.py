"""Work that torch's own threads share badly: pieces too small to split again, one on every core of the CPU."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from threading import Barrier, local
from typing import TypeVar

import torch

Piece = TypeVar("Piece")
Result = TypeVar("Result")


def cores(device: torch.device) -> int:
    """How many pieces of work run at a time: torch's threads on a CPU, 1 on other devices and within a piece."""
    return getattr(_held, "cores", torch.get_num_threads()) if device.type == "cpu" else 1


@contextmanager
def one_thread(wanted: bool = True) -> Iterator[None]:
    """Keep torch's operations in the calling thread within this block; `on_every_core` has as many cores as before.

    Without it the threads that torch has woken for an operation stay awake for a while and take the cores from pieces.
    """
    before = torch.get_num_threads()
    if not wanted or before == 1:
        yield
        return
    _held.cores = before
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        del _held.cores


_held = local()


def on_every_core(work: Callable[[Piece], Result], pieces: Sequence[Piece], device: torch.device) -> Iterator[Result]:
    """`work(piece)` for each piece, in order; on a CPU as many at a time as torch has threads, each on one core.

    Waking a thread for a part of an operation costs as much as the part where operations take microseconds, as those
    of small models and of corruptions do. `work` must not depend on torch's thread-local modes (grad, autocast) being
    set outside of it. What it raises is raised here.
    """
    threads = min(cores(device), len(pieces))
    return map(work, pieces) if threads < 2 else _pool(cores(device)).map(work, pieces)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads on which torch computes without help from others."""
    met = Barrier(threads + 1)

    def begin() -> None:
        torch.get_num_threads()  # torch sets the number when a thread first asks: what is set here must come later
        torch.set_num_threads(1)  # of this thread, and of threads that have not asked torch for their number yet
        met.wait()

    pool = ThreadPoolExecutor(threads, thread_name_prefix="piece")
    for _ in range(threads):
        pool.submit(begin)
    before = torch.get_num_threads()
    met.wait()
    torch.set_num_threads(before)  # so for those threads, this is put right again
    return pool
