"""One trip over a data set: images are decoded ahead of the model, in threads.

Threads and not processes, by measurement: PIL lets go of Python's lock while it decodes and resizes, and what holds the
lock is at most 0.2 ms of an image's 5 ms (500 x 375 pixels, one core). Processes would add a start, a copy of every
batch and care with CUDA; benchmarks/decode.py compares with timm's.
"""

from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future

import torch

from robustbench_twicing.data.dataset import Batch, Dataset
from robustbench_twicing.machine.cores import lone_threads
from robustbench_twicing.spec.models import Recipe


def read_ahead(
    dataset: Dataset,
    shards: Iterable[Sequence[int]],
    recipes: Sequence[Recipe],
    workers: int,
    pin_memory: bool = False,
    ahead: int = 2,
) -> Generator[Batch, None, None]:
    """One batch for each shard, in order, while the `ahead` shards after it are being decoded by `workers` threads.

    At most `ahead` + 1 decoded shards exist besides the one handed out, however long the data set. `workers` = 0 reads
    in the calling thread. `pin_memory` puts the images into page-locked memory, from which a copy to a CUDA device does
    not wait. Closing the iterator, an exception or Ctrl-C stops the threads after the images they are at.
    """
    if workers == 0:
        for shard in shards:
            yield _joined([dataset.read(shard, recipes)], pin_memory)
        return
    pool = lone_threads(workers, "decode")
    waiting: deque[list[Future[Batch]]] = deque()
    try:
        for shard in shards:
            waiting.append([pool.submit(dataset.read, part, recipes) for part in _split(shard, workers)])
            if len(waiting) > ahead:
                yield _joined([part.result() for part in waiting.popleft()], pin_memory)
        while waiting:
            yield _joined([part.result() for part in waiting.popleft()], pin_memory)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _split(shard: Sequence[int], workers: int) -> list[Sequence[int]]:
    """The shard in at most `workers` runs of nearly equal length, at least one."""
    length = max(1, -(-len(shard) // workers))
    return [shard[start : start + length] for start in range(0, len(shard), length)] or [shard]


def _joined(parts: Sequence[Batch], pin_memory: bool) -> Batch:
    recipes = parts[0].images
    return Batch(
        positions=tuple(position for part in parts for position in part.positions),
        images={recipe: _concatenated([part.images[recipe] for part in parts], pin_memory) for recipe in recipes},
        readable=tuple(position for part in parts for position in part.readable),
        errors={position: why for part in parts for position, why in part.errors.items()},
    )


def _concatenated(parts: Sequence[torch.Tensor], pin_memory: bool) -> torch.Tensor:
    parts = [part for part in parts if len(part)] or parts[:1]
    if not pin_memory:
        return parts[0] if len(parts) == 1 else torch.cat(list(parts))
    images = torch.empty((sum(map(len, parts)), *parts[0].shape[1:]), dtype=parts[0].dtype, pin_memory=True)
    return torch.cat(list(parts), out=images)
