"""Workers on a Ray cluster compute. Ray places them, starts them anew and carries what they say; nothing else.

A worker keeps the plan open. What travels to it once is plan, means, weights and what the driver found of each cell;
then shards by name. What comes back is the file of each finished shard, which the driver writes: workers need the data
set, and no place to write.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from robustbench_twicing.catalog.plugins import used
from robustbench_twicing.errors import UserError
from robustbench_twicing.machine.cores import threads_on
from robustbench_twicing.results.manifest import Shard
from robustbench_twicing.results.used import Maker, MeansUsed
from robustbench_twicing.runner.environment import code_and_versions, environment, versions_of_this
from robustbench_twicing.runner.executors.cluster import Places, connected, places_of
from robustbench_twicing.runner.executors.executor import Executor, Finished
from robustbench_twicing.runner.executors.flight import Flight
from robustbench_twicing.runner.executors.loads import loads_of
from robustbench_twicing.runner.executors.worker import Job, Worker
from robustbench_twicing.runner.prepare import Ready
from robustbench_twicing.spec.means import Means
from robustbench_twicing.spec.plan import Cell
from robustbench_twicing.tasks.task import Looks, Progress

_STARTING = 180.0
"""Seconds that workers are waited for; who is not there then is done without."""


class RayExecutor:
    """An `Executor` whose work is done by workers of a cluster."""

    def __init__(self, ray: Any, ready: Ready, means: Means, places: Places) -> None:
        self._ray = ray
        self._ready = ready
        self._known = MeansUsed()
        remote = ray.remote(Worker)
        options = {"num_cpus": places.cores, "num_gpus": places.gpus, "max_restarts": -1, "max_task_retries": 0}
        self._workers = [remote.options(**options).remote() for _ in range(places.workers)]
        try:
            self._workers = self._introduced()
            self._job = ray.put(self._job_of(means, places))
            self.maker, self._environment = self._opened()
        except BaseException:
            self.close()
            raise

    def _job_of(self, means: Means, places: Places) -> Job:
        opened, plan = self._ready.opened, self._ready.plan
        loaded = getattr(opened, "models", {})
        travels = {spec.name: loaded[spec.name] for spec in plan.all_models if not spec.is_plugged}
        directories = {name: place.absolute() for name, place in means.directories.items()}
        asked = {"device": "cuda" if places.gpus else "cpu", "directories": directories}
        return Job(
            plan=plan,
            means=means.model_copy(update=asked),
            models=travels,
            entries=self._ready.entries,
            origins=tuple(used()),
            folder=str(Path.cwd()),
            threads=threads_on(places.cores),
        )

    def _introduced(self) -> list[Any]:
        """The workers that are there in time, each with the versions that are installed here."""
        asked = {worker.introduce.remote(): worker for worker in self._workers}
        ready, late = self._ray.wait(list(asked), num_returns=len(asked), timeout=_STARTING)
        for reference in late:
            self._ray.kill(asked[reference])
        if not ready:
            raise UserError(
                f"No worker could be started within {_STARTING:g} s.",
                f"Others may use the cluster: {self._ray.available_resources()} are free. Wait, or ask for less with "
                "--workers and --gpus-per-model.",
            )
        code, versions = code_and_versions()
        for reference in ready:
            refuse_other_versions(self._told(reference), code, versions_of_this() | versions)
        return [asked[reference] for reference in ready]

    def _opened(self) -> tuple[Maker, Mapping[str, Any]]:
        """What the workers compute with, each having opened the plan."""
        answers = [self._told(reference) for reference in [w.open.remote(self._job) for w in self._workers]]
        makers = {maker.device for maker, _ in answers}
        if len(makers) > 1:
            raise UserError(
                f"The workers have different devices: {', '.join(sorted(makers))}.",
                "Records of one run are made by one kind of device: use a cluster of one kind, or --device cpu.",
            )
        maker, where = answers[0]
        return maker, where

    def _told(self, reference: Any) -> Any:
        """What a worker says that was just started. Raises `UserError`."""
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise error.cause from None
            raise _lacks_package(error) or error from None
        except self._ray.exceptions.RayActorError as error:
            lines = str(error).strip().splitlines()
            raise _lacks_package(error) or UserError(
                f"A worker died when it was started: {lines[-1] if lines else error!r}",
                "It may lack memory: pass fewer --workers, or look into Ray's logs on that machine.",
            ) from None

    def environment(self) -> Mapping[str, Any]:
        """As `Executor.environment`: the device is the workers', the command and the source state are ours."""
        own = environment(self._ready.device, self._ready.plan)
        return {**own, **{key: self._environment[key] for key in ("device", "platform")}}

    def preflight(self, pending: Mapping[Cell, Sequence[Shard]]) -> Looks:
        """As `Executor.preflight`, by one worker."""
        places = {cell: place for place, cell in enumerate(self._ready.plan.cells)}
        asked = [(places[cell], shard) for cell, shards in pending.items() for shard in shards[:1]]
        found: Looks = self._told(self._workers[0].preflight.remote(self._job, asked))
        return found

    def tune(self, known: MeansUsed) -> MeansUsed:
        """As `Executor.tune`: one worker measures, and all evaluate alike."""
        tuned: MeansUsed = self._told(self._workers[0].tune.remote(self._job, known))
        self._known = tuned.model_copy(update={"workers": len(self._workers)})
        return self._known

    def finished(self, pending: Mapping[Cell, Sequence[Shard]], progress: Progress) -> Iterator[Finished]:
        """As `Executor.finished`: the dearest shards first, and a stop loses at most those at work."""
        loads = loads_of(self._ready, pending, len(self._workers))
        flight = Flight(self._ray, self._workers, [self._job], self._known, loads)
        yield from flight.finished(self._ready.plan.cells, progress)

    def close(self) -> None:
        """Give the cluster back what the workers took."""
        for worker in self._workers:
            self._ray.kill(worker)


def refuse_other_versions(worker: Mapping[str, Any], code: str, versions: Mapping[str, str]) -> None:
    """Raise `UserError`, naming the first difference, unless a worker has the same code and packages as we have."""
    host = worker["host"]
    for name in dict.fromkeys([*versions, *worker["versions"]]):
        here, there = versions.get(name, "none"), worker["versions"].get(name, "none")
        if here != there:
            raise UserError(
                f"The worker on {host} has {name} {there}, and this process {here}.",
                "Install the same versions on every machine, best from one lock file or image (docs/scale.md).",
            )
    if worker["code"] != code:
        raise UserError(
            f"The worker on {host} has another version of this package's code ({worker['code']}, here {code}).",
            "Install the same commit on every machine.",
        )


def _lacks_package(error: Exception) -> UserError | None:
    text = str(error)
    if "No module named" not in text and "ImportError" not in text and "ModuleNotFoundError" not in text:
        return None
    line = next((line for line in reversed(text.splitlines()) if "No module named" in line or "Import" in line), text)
    return UserError(
        f"A worker cannot import what it needs: {line.strip()}", "Install twicing-bench[ray] on every machine."
    )


@contextmanager
def on_cluster(ready: Ready, means: Means) -> Iterator[Executor]:
    """The executor of a cluster that has room for the means' workers. Raises `UserError`."""
    with connected(means.address) as ray:
        executor = RayExecutor(ray, ready, means, places_of(ray.nodes(), means))
        try:
            yield executor
        finally:
            executor.close()
