"""Carry out a plan: read each sample once, feed every model and every threat that needs it, keep finished shards."""

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import torch

from robustbench_twicing.data.passes import read_ahead
from robustbench_twicing.models.faster.precision import tensor_cores
from robustbench_twicing.results.manifest import Shard
from robustbench_twicing.results.store import RunFolder
from robustbench_twicing.runner.schedule import BLOCK
from robustbench_twicing.spec.plan import Cell
from robustbench_twicing.tasks.images.block import Block, Work
from robustbench_twicing.tasks.task import Progress


def execute(
    work: Sequence[Work],
    folder: RunFolder,
    common: Callable[[Cell], dict[str, Any]],
    seed: int,
    workers: int,
    device: torch.device,
    frost_dir: str | None,
    progress: Progress,
) -> None:
    """Do all pending shards. `common(cell)` gives the columns that are the same in every record of a cell.

    Each source is read once: a sample is decoded once however many models and threats need it. A shard is written as
    soon as it is finished, so a stop at any moment loses at most the shard at work.
    """
    left = {item.cell: len(item.pending) for item in work}
    for dataset in {id(item.source.dataset): item.source.dataset for item in work}.values():
        mine = [item for item in work if item.source.dataset is dataset]
        recipes = list(dict.fromkeys(item.recipe for item in mine))
        due: dict[int, list[tuple[Work, Shard]]] = {}
        for item in mine:
            for shard in item.pending:
                due.setdefault(shard.start // BLOCK, []).append((item, shard))
        spans = [range(block * BLOCK, max(shard.stop for _, shard in due[block])) for block in sorted(due)]
        ahead = read_ahead(dataset, spans, recipes, workers, pin_memory=device.type == "cuda")
        with closing(ahead) as batches, tensor_cores(allowed=False):
            for number, batch in zip(sorted(due), batches, strict=True):
                block = Block(batch, device, seed, frost_dir)
                for item, shard in due[number]:
                    folder.write_shard(shard, block.records(item, shard, progress).assign(**common(item.cell)))
                    left[item.cell] -= 1
                    if left[item.cell] == 0:
                        progress.finish(item.cell)
