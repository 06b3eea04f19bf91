"""A plan opened, and its cells cut into shards. The cuts depend on the plan alone, never on batch size or device."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from robustbench_twicing.results.manifest import CellEntry, samples_hash
from robustbench_twicing.results.store import cell_folder
from robustbench_twicing.spec.means import Means
from robustbench_twicing.spec.plan import Cell, Plan
from robustbench_twicing.tasks.table import task_of
from robustbench_twicing.tasks.task import Opened


@dataclass(frozen=True, eq=False)
class Ready:
    """A plan with its models loaded and its data open: all that is left is to compute."""

    plan: Plan
    opened: Opened
    entries: tuple[CellEntry, ...]
    """For each of the plan's cells what the manifest says of it, shards included."""
    device: torch.device


def prepare(plan: Plan, means: Means, device: torch.device, models: Mapping[str, Any]) -> Ready:
    """Load the models and open the data. `models` holds those that are already in memory. Raises `UserError`."""
    opened = task_of(plan).open(plan, means, device, models)
    return Ready(plan, opened, tuple(_entry(plan, opened, cell) for cell in plan.cells), device)


def _entry(plan: Plan, opened: Opened, cell: Cell) -> CellEntry:
    common, samples = opened.common(cell), opened.samples(cell.threat)
    count = plan.samples_for(cell.threat, len(samples.labels))
    return CellEntry(
        model=cell.model.name,
        threat=cell.threat.id,
        threat_hash=cell.threat.hash,
        recipe=common["recipe"],
        folder=_folder_of(cell, common),
        samples=count,
        shard_size=opened.shard_size(cell.threat),
        samples_hash=samples_hash(samples.ids[:count], samples.labels[:count]),
    )


def _folder_of(cell: Cell, common: Mapping[str, Any]) -> str:
    """Folder of a cell: named after what decides its numbers, out of the columns common to its records."""
    names = (
        *("weights_hash", "architecture", "attention", "data", "data_fingerprint", "recipe", "protocol_hash", "seed"),
        *("source_weights_hash", "scored"),
    )
    decides = {"threat": cell.threat.id, **{name: common[name] for name in names}}
    return cell_folder(cell.model.name, cell.threat.id, decides)
