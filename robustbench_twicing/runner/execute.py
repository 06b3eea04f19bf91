"""Carry out what is pending of a plan: keep each shard as soon as its records are there."""

from collections.abc import Mapping, Sequence
from contextlib import closing

from robustbench_twicing.results.manifest import Shard
from robustbench_twicing.results.store import RunFolder
from robustbench_twicing.runner.executors.executor import Executor
from robustbench_twicing.spec.plan import Cell
from robustbench_twicing.tasks.task import Progress


def execute(executor: Executor, pending: Mapping[Cell, Sequence[Shard]], folder: RunFolder, progress: Progress) -> None:
    """Do all pending shards, each once. Raises `UserError` if some could not be computed, after all the others."""
    left = {cell: set(shards) for cell, shards in pending.items()}
    with closing(executor.finished(pending, progress)) as done:  # type: ignore[type-var] # a generator
        for cell, shard, name, content in done:
            left[cell].remove(shard)  # a second time, or one that nobody asked for, is a fault of the executor
            folder.keep(shard, name, content)
            if not left[cell]:
                progress.finish(cell)
    lost = [shard for shards in left.values() for shard in shards]
    assert not lost, f"never computed: {lost[:5]}"
