"""Who computes what is pending of a plan: this process, or workers elsewhere.

Shards go in, and the files of finished shards come out. Only the runner writes into the run folder.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from typing import Any, NamedTuple, Protocol, runtime_checkable

from robustbench_twicing.errors import UserError
from robustbench_twicing.results.manifest import Shard
from robustbench_twicing.results.store import file_of_rows
from robustbench_twicing.results.used import Maker, MeansUsed
from robustbench_twicing.runner.prepare import Ready
from robustbench_twicing.spec.means import Means
from robustbench_twicing.spec.plan import Cell
from robustbench_twicing.tasks.task import Looks, Opened, Progress


class Finished(NamedTuple):
    """A shard that was computed."""

    cell: Cell
    shard: Shard
    name: str
    """Of its file, as `results.store` names it."""
    content: bytes


def computed(opened: Opened, pending: Mapping[Cell, Sequence[Shard]], progress: Progress) -> Iterator[Finished]:
    """Do these shards here, whoever asks; each is handed out as soon as it is done."""
    with closing(opened.records(pending, progress, whole=True)) as done:  # type: ignore[type-var] # a generator
        for cell, shard, rows in done:
            yield Finished(cell, shard, *file_of_rows(shard, rows.assign(**opened.common(cell))))


@runtime_checkable
class Executor(Protocol):
    """Who computes."""

    maker: Maker
    """What decides a number beside the settings."""

    def environment(self) -> Mapping[str, Any]:
        """The fields of the manifest that `runner.environment.environment` says, of where the work is done."""
        ...

    def preflight(self, pending: Mapping[Cell, Sequence[Shard]]) -> Looks:
        """As `Opened.preflight`."""
        ...

    def tune(self, known: MeansUsed) -> MeansUsed:
        """As `Opened.tune`, by the means that the executor was given."""
        ...

    def finished(self, pending: Mapping[Cell, Sequence[Shard]], progress: Progress) -> Iterator[Finished]:
        """Do these shards, each once. Raises `UserError`, after all others are done, if some cannot be computed."""
        ...


def chosen_executor(ready: Ready, means: Means) -> AbstractContextManager[Executor]:
    """The executor that the means say, within the context. Raises `UserError`."""
    if means.executor == "local":
        from robustbench_twicing.runner.executors.local import in_this_process

        return in_this_process(ready, means)
    from robustbench_twicing.runner.executors.ray import on_cluster

    return on_cluster(ready, means)


def refuse_other_means(means: Means, in_memory: Sequence[str]) -> None:
    """Raise `UserError` for means that the chosen executor cannot do anything with, before anything is loaded."""
    if means.executor == "local":
        named = {"address": means.address, "gpus-per-model": means.gpus_per_model, "workers": means.workers}
        if given := [f"--{name}" for name, value in named.items() if value is not None]:
            raise UserError(
                f"{', '.join(given)} means nothing without a cluster.", "Add --executor ray, or leave it away."
            )
        return
    if in_memory:
        raise UserError(
            f"{', '.join(in_memory)} lies in the memory of this process, where workers of Ray cannot see it.",
            "Pass executor='local', or name a model by its architecture and checkpoint, or by python:MODULE:NAME.",
        )
    if means.keep_images:
        raise UserError(
            "--keep-images makes its images in this process.",
            "Run without it; the same command with --keep-images and without --executor ray then adds the images.",
        )
