"""What runs on the machines of a cluster: a process that keeps a plan open and does the shards it is given.

Nothing here knows Ray. What a worker is first asked (`introduce`) and answers is plain, so that a worker of another
version can say which one it is; whatever follows are our own values.
"""

import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Any, NamedTuple

import torch

from robustbench_twicing.catalog.places import require_places
from robustbench_twicing.catalog.plugins import Origin, find_plugin
from robustbench_twicing.errors import UserError
from robustbench_twicing.machine.device import choose_device
from robustbench_twicing.machine.malloc import keep_freed_blocks
from robustbench_twicing.machine.surroundings import plain_torch
from robustbench_twicing.models.classifier import Classifier
from robustbench_twicing.results.manifest import CellEntry, Shard
from robustbench_twicing.results.used import Maker, MeansUsed
from robustbench_twicing.runner.environment import code_and_versions, environment, made_by, versions_of_this
from robustbench_twicing.runner.executors.executor import computed
from robustbench_twicing.runner.prepare import Ready, prepare
from robustbench_twicing.spec.means import Means
from robustbench_twicing.spec.plan import Plan
from robustbench_twicing.tasks.task import NOBODY, Looks

Asked = Sequence[tuple[int, Shard]]
"""Shards, each with the place of its cell in the plan."""


class Job(NamedTuple):
    """Everything that a worker needs to know; the same for all of them."""

    plan: Plan
    means: Means
    """With the device that workers compute on."""
    models: Mapping[str, Classifier]
    """Loaded by the driver, on the CPU; what is not here, a worker loads itself."""
    entries: tuple[CellEntry, ...]
    """What the driver found of each cell: a worker with other data or weights finds something else."""
    origins: tuple[Origin, ...]
    """What other packages added, and whatever code the user named."""
    folder: str
    """The driver's working folder, which paths may be relative to."""
    threads: int
    """Of a worker on the CPU."""


class Worker:
    """One process of a cluster, with the plan open from its first job on."""

    def __init__(self) -> None:
        self._ready: Ready | None = None
        self._known: MeansUsed | None = None

    def introduce(self) -> dict[str, Any]:
        """Which machine this is, and what is installed on it."""
        code, versions = code_and_versions()
        return {"host": socket.gethostname(), "code": code, "versions": {**versions_of_this(), **versions}}

    def open(self, job: Job) -> tuple[Maker, dict[str, Any]]:
        """Open the plan; returns what this worker computes with (`made_by` and `environment`). Raises `UserError`."""
        ready = self._opened(job)
        return made_by(ready.device, ready.plan), environment(ready.device, ready.plan)

    def tune(self, job: Job, known: MeansUsed) -> MeansUsed:
        """As `Opened.tune`."""
        with plain_torch():
            return self._opened(job).opened.tune(job.means, known)

    def preflight(self, job: Job, asked: Asked) -> Looks:
        """As `Opened.preflight`, on the cells of these shards."""
        ready = self._opened(job)
        with plain_torch():
            return ready.opened.preflight(_by_cell(ready, asked))

    def finished(self, job: Sequence[Any], known: MeansUsed, asked: Asked) -> Iterator[tuple[int, Shard, str, bytes]]:
        """Do these shards, evaluated as it is `known`, and hand out each with its file's name and content.

        `job` holds the job, or a reference to it, which is followed only by a worker that was started anew.
        """
        ready = self._ready or self._opened(_followed(job[0]))
        with plain_torch():
            if self._known != known:
                ready.opened.tune(_followed(job[0]).means, known)
                self._known = known
            cells = {ready.plan.cells[place]: place for place, _ in asked}
            with closing(computed(ready.opened, _by_cell(ready, asked), NOBODY)) as done:  # type: ignore[type-var]
                for cell, shard, name, content in done:
                    yield cells[cell], shard, name, content

    def _opened(self, job: Job) -> Ready:
        if self._ready is None:
            with _named(socket.gethostname()), plain_torch():
                self._ready = _open(job)
        return self._ready


def _by_cell(ready: Ready, asked: Asked) -> dict[Any, list[Shard]]:
    pending: dict[Any, list[Shard]] = {}
    for place, shard in asked:
        pending.setdefault(ready.plan.cells[place], []).append(shard)
    return pending


def _followed(reference: Any) -> Job:
    if isinstance(reference, Job):
        return reference
    import ray

    found: Job = ray.get(reference)
    return found


@contextmanager
def _named(host: str) -> Iterator[None]:
    """Within it, a mistake names the machine."""
    try:
        yield
    except UserError as error:
        raise UserError(
            f"On {host}: {error.message}", f"{error.hint} Every worker must see the same files under the same names."
        ) from None


def _open(job: Job) -> Ready:
    with suppress(OSError):  # what is looked for there is missed by name
        os.chdir(job.folder)
    for origin in job.origins:
        found = find_plugin(origin.group, origin.name)
        version = found.origin.version if found else "nothing"
        if version != origin.version:
            raise UserError(
                f"{origin.name} is {version} here, and {origin.version} where the run was started.",
                f"Install the same {origin.package} on every node.",
            )
    device = choose_device(job.means.device)
    if device.type == "cpu":
        torch.set_num_threads(job.threads)
    keep_freed_blocks()
    require_places(job.plan, job.means)
    models = {name: _moved(model, device) for name, model in job.models.items()}
    ready = prepare(job.plan, job.means, device, models)
    refuse_other_data(ready, job.entries)
    return ready


def _moved(model: Classifier, device: torch.device) -> Classifier:
    """A model that was loaded on a CPU, as it would be if it had been loaded on this device."""
    if device.type != "cpu":
        model.granule = 1
    return model.to(device)


def refuse_other_data(ready: Ready, entries: Sequence[CellEntry]) -> None:
    """Raise `UserError` unless every cell is here what it is for the driver, by the hashes of samples and weights."""
    for cell, here, there in zip(ready.plan.cells, ready.entries, entries, strict=True):
        if here == there:
            continue
        data = ready.opened.data_used(cell.threat)
        what = f"the images of {cell.threat.id} ({data.name}, {data.samples:,} samples, fingerprint {data.fingerprint})"
        if (here.samples_hash, here.samples) == (there.samples_hash, there.samples):
            what += f" or the weights of {cell.model.name}"
        raise UserError(f"{what} are not those of the machine that started the run.", "Copy the data set there anew.")
