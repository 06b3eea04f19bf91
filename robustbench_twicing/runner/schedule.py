"""What has to be done, cut into shards. The cuts depend on the plan alone, never on batch size or device."""

from collections.abc import Iterator, Mapping
from typing import Any

from robustbench_twicing.plan import Cell
from robustbench_twicing.specs import Threat
from robustbench_twicing.store import Shard, cell_folder

BLOCK = 256
"""Samples that are read together; a shard lies within one block."""

_SHARDS = ((4000, 8), (400, 64))
"""From so many evaluations per sample on, a shard has so few: a kill then loses seconds or minutes, not an hour."""


def shard_size(threat: Threat) -> int:
    """Samples of a threat's shard; divides `BLOCK`."""
    evaluations = threat.settings.evaluations if threat.kind == "attack" else 1
    return next((size for dear, size in _SHARDS if evaluations >= dear), BLOCK)


def folder_of(cell: Cell, common: Mapping[str, Any]) -> str:
    """Folder of a cell: named after what decides its numbers, out of the columns common to its records."""
    names = (
        *("weights_hash", "architecture", "twicing", "data", "data_fingerprint", "recipe", "protocol_hash", "seed"),
        "source_weights_hash",
    )
    decides = {"threat": cell.threat.id, **{name: common[name] for name in names}}
    return cell_folder(cell.model.name, cell.threat.id, decides)


def cell_shards(cell: Mapping[str, Any]) -> list[Shard]:
    """The shards of a cell of a manifest, in order."""
    size, samples = cell["shard_size"], cell["samples"]
    return [Shard(cell["folder"], start, min(start + size, samples)) for start in range(0, samples, size)]


def manifest_shards(manifest: Mapping[str, Any]) -> Iterator[Shard]:
    """Every shard that a run's manifest promises, in the order of its cells."""
    for cell in manifest["cells"]:
        yield from cell_shards(cell)
