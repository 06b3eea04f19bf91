"""Carry out what is pending of a plan: keep each shard as soon as its records are there."""

from collections.abc import Mapping, Sequence
from contextlib import closing

from robustbench_twicing.results.manifest import Shard
from robustbench_twicing.results.store import RunFolder
from robustbench_twicing.spec.plan import Cell
from robustbench_twicing.tasks.task import Opened, Progress


def execute(opened: Opened, pending: Mapping[Cell, Sequence[Shard]], folder: RunFolder, progress: Progress) -> None:
    """Do all pending shards. A stop at any moment loses at most the shard at work."""
    left = {cell: len(shards) for cell, shards in pending.items()}
    with closing(opened.records(pending, progress)) as done:  # type: ignore[type-var] # a generator
        for cell, shard, rows in done:
            folder.replace_shard(shard, rows.assign(**opened.common(cell)))
            left[cell] -= 1
            if left[cell] == 0:
                progress.finish(cell)
