"""What has to be done, cut into shards. The cuts depend on the plan alone, never on batch size or device."""

from collections.abc import Mapping
from typing import Any

from robustbench_twicing.results.store import cell_folder
from robustbench_twicing.spec.plan import Cell
from robustbench_twicing.spec.threats import Threat

BLOCK = 256
"""Samples that are read together; a shard lies within one block."""

_DEAR, _FEW, _SOME = 300, 8, 128
"""From this many evaluations per sample on, a shard is kept small: a kill then loses minutes, not an hour. It is
smallest where one sample's own evaluations fill a batch; other attacks need samples side by side to fill the device."""


def shard_size(threat: Threat) -> int:
    """Samples of a threat's shard; divides `BLOCK`."""
    if threat.kind != "attack" or threat.settings.evaluations < _DEAR:
        return BLOCK
    return _FEW if threat.settings.side_by_side >= _FEW else _SOME


def folder_of(cell: Cell, common: Mapping[str, Any]) -> str:
    """Folder of a cell: named after what decides its numbers, out of the columns common to its records."""
    names = (
        *("weights_hash", "architecture", "attention", "data", "data_fingerprint", "recipe", "protocol_hash", "seed"),
        *("source_weights_hash", "scored"),
    )
    decides = {"threat": cell.threat.id, **{name: common[name] for name in names}}
    return cell_folder(cell.model.name, cell.threat.id, decides)
