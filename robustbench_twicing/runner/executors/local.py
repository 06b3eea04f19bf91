"""This process computes, with all cores or with one GPU."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from robustbench_twicing.results.manifest import Shard
from robustbench_twicing.results.used import MeansUsed
from robustbench_twicing.runner.environment import environment, made_by
from robustbench_twicing.runner.executors.executor import Executor, Finished, computed
from robustbench_twicing.runner.prepare import Ready
from robustbench_twicing.spec.means import Means
from robustbench_twicing.spec.plan import Cell
from robustbench_twicing.tasks.task import Looks, Progress


class LocalExecutor:
    """An `Executor` that computes where it is called."""

    def __init__(self, ready: Ready, means: Means) -> None:
        self.maker = made_by(ready.device, ready.plan)
        self._ready = ready
        self._means = means

    def environment(self) -> Mapping[str, Any]:
        """As `Executor.environment`."""
        return environment(self._ready.device, self._ready.plan)

    def preflight(self, pending: Mapping[Cell, Sequence[Shard]]) -> Looks:
        """As `Executor.preflight`."""
        return self._ready.opened.preflight(pending)

    def tune(self, known: MeansUsed) -> MeansUsed:
        """As `Executor.tune`."""
        return self._ready.opened.tune(self._means, known)

    def finished(self, pending: Mapping[Cell, Sequence[Shard]], progress: Progress) -> Iterator[Finished]:
        """As `Executor.finished`. A stop at any moment loses at most the shard at work."""
        return computed(self._ready.opened, pending, progress)


@contextmanager
def in_this_process(ready: Ready, means: Means) -> Iterator[Executor]:
    """The executor that needs nothing but this process."""
    yield LocalExecutor(ready, means)
