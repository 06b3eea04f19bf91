"""What a plan would cost: evaluations and disk by counting, hours by a probe of the first samples."""

import math
import shutil
import time
from collections import deque
from collections.abc import Hashable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from robustbench_twicing.machine.device import choose_device
from robustbench_twicing.machine.surroundings import plain_torch
from robustbench_twicing.results.elsewhere import folder_of
from robustbench_twicing.results.manifest import Shard
from robustbench_twicing.results.store import RUNS
from robustbench_twicing.results.used import MeansUsed
from robustbench_twicing.runner.environment import made_by
from robustbench_twicing.runner.prepare import Ready, prepare
from robustbench_twicing.runner.resume import refuse_other_settings, to_take_over
from robustbench_twicing.spec.means import Means
from robustbench_twicing.spec.plan import Cell, Plan
from robustbench_twicing.tasks.table import task_of
from robustbench_twicing.tasks.task import BLOCK, evaluations_of

PROBE_SECONDS = 24.0
"""All probes together; loading the models comes on top, and a single evaluation is never cut short."""

# Of shards of 8, 64 and 256 records: 19.6, 22.7 and 32.2 kB (pyarrow 26, zstd, columns of schema 1).
_SHARD_BYTES, _RECORD_BYTES = 20_000, 50

_FIRST_SAMPLES, _MORE = 8, 4
"""Samples of the first probe of a cell, and how many times as many the next one has."""


@dataclass(frozen=True)
class CellCost:
    """What is still to be done of one cell."""

    model: str
    threat: str
    samples: int
    """In the plan."""
    left: int
    """Neither finished here nor to be taken over from another run."""
    forwards: int
    """Evaluations of the model for those that are left, at most."""
    backwards: int | None
    """Input gradients, at most; None if nobody knows."""
    seconds: float


@dataclass(frozen=True)
class Cost:
    """What is still to be done of a plan."""

    cells: tuple[CellCost, ...]
    loading_seconds: float
    """Measured: models and data."""
    size: int
    """Bytes that will be written, about."""
    free: int
    """Bytes that the disk has left."""

    @property
    def seconds(self) -> float:
        """All of it, about."""
        return self.loading_seconds + sum(cell.seconds for cell in self.cells)


@plain_torch()
def estimate(plan: Plan, out: Path, means: Means, probe_seconds: float = PROBE_SECONDS) -> Cost:
    """Count what is left of a plan whose folder is `out`, and time its first samples. Writes nothing in `out`.

    The forwards and backwards are upper ends: attacks stop at samples they have broken. The time is measured with
    samples that are broken where they are, and without compiling, so it is no upper end. Raises `UserError` as the run
    itself would.
    """
    plan = task_of(plan).settled(plan, means)
    device = choose_device(means.device)
    folder = folder_of(out)
    refuse_other_settings(folder, plan)
    began = time.perf_counter()
    ready = prepare(plan, means, device, {})
    known = folder.manifest().means if folder.exists() else MeansUsed()
    anew = means.fresh and folder.exists() and folder.manifest().status == "finished"
    ready.opened.tune(means.model_copy(update={"compiles": False}), known)
    loading = time.perf_counter() - began
    left: dict[Cell, list[Shard]] = {}
    for cell, entry in zip(plan.cells, ready.entries, strict=True):
        left[cell] = [shard for shard in entry.shards if anew or not folder.files_of(shard)]
    if not means.fresh:
        elsewhere = to_take_over(folder, [s for some in left.values() for s in some], RUNS, made_by(device, plan))
        left = {cell: [shard for shard in some if shard not in elsewhere] for cell, some in left.items()}
    pace = _probe(ready, {cell: some for cell, some in left.items() if some}, probe_seconds)
    cells = []
    for cell, entry in zip(plan.cells, ready.entries, strict=True):
        samples = sum(shard.stop - shard.start for shard in left[cell])
        gradients = cell.threat.settings.gradients if cell.threat.kind == "attack" else 0
        cells.append(
            CellCost(
                model=cell.model.name,
                threat=cell.threat.id,
                samples=entry.samples,
                left=samples,
                forwards=evaluations_of(cell, samples),
                backwards=None if gradients is None else samples * gradients,
                seconds=samples * pace[_kind(cell)] if samples else 0.0,
            )
        )
    shards = sum(len(some) for some in left.values())
    size = shards * _SHARD_BYTES + sum(cell.left for cell in cells) * _RECORD_BYTES
    there = next(path for path in (folder.path.absolute(), *folder.path.absolute().parents) if path.exists())
    return Cost(tuple(cells), loading, size, shutil.disk_usage(there).free)


def _kind(cell: Cell) -> Hashable:
    """Cells of one kind cost the same for each sample, about."""
    threat = cell.threat
    if threat.kind == "attack":
        return cell.model.name, threat.id
    if threat.kind == "corruption" and threat.generated:
        return cell.model.name, threat.corruption
    return cell.model.name, "only judged"


def _probe(ready: Ready, left: Mapping[Cell, list[Shard]], seconds: float) -> dict[Hashable, float]:
    """Seconds for each sample, by kind of cell, measured on the first samples of one cell of each kind."""
    chosen: dict[Hashable, Cell] = {}
    for cell in left:
        chosen.setdefault(_kind(cell), cell)
    deadline, pace = time.perf_counter() + seconds, dict[Hashable, float]()
    # The cheap ones first: the time that they do not need goes to the dear ones.
    for done, (kind, cell) in enumerate(sorted(chosen.items(), key=lambda item: evaluations_of(item[1], 1))):
        share = (deadline - time.perf_counter()) / (len(chosen) - done)
        pace[kind] = _pace(ready, cell, left[cell], share)
    return pace


def _pace(ready: Ready, cell: Cell, left: list[Shard], seconds: float) -> float:
    """More samples each time, as long as there is time: a device is at its pace only when it is full."""
    deadline = time.perf_counter() + seconds
    first, dearest = left[0].start, evaluations_of(cell, 1)
    most = min(left[-1].stop, (first // BLOCK + 1) * BLOCK) - first
    count, pace = min(_FIRST_SAMPLES, most), math.inf
    while True:
        clock, began = _Clock(deadline), time.perf_counter()
        shards = {cell: [Shard("probe", first, first + count)]}
        with suppress(_TimeIsUpError), closing(ready.opened.records(shards, clock)) as done:  # type: ignore[type-var]
            deque(done, maxlen=0)
        elapsed = time.perf_counter() - began
        # Cut short, it is what the evaluations so far say, as if no sample were broken: never below the truth.
        pace = min(pace, elapsed / min(count, max(clock.evaluations, 1) / dearest))
        count = min(_MORE * count, most)
        if clock.stopped or clock.evaluations >= most * dearest or elapsed * _MORE / 2 > deadline - time.perf_counter():
            return pace


class _TimeIsUpError(Exception):
    pass


class _Clock:
    """Counts evaluations, and stops the work when its time is up."""

    def __init__(self, deadline: float) -> None:
        self.evaluations = 0
        self.stopped = False
        self._deadline = deadline

    def advance(self, cell: Cell, evaluations: int) -> None:
        self.evaluations += evaluations
        if time.perf_counter() > self._deadline:
            self.stopped = True
            raise _TimeIsUpError

    def finish(self, cell: Cell) -> None:
        pass

    def say(self, remark: str) -> None:
        pass
