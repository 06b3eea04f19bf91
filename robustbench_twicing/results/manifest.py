"""What a run's manifest promises. No torch."""

from collections.abc import Iterator, Mapping
from typing import Any

from robustbench_twicing.results.store import Shard


def cell_shards(cell: Mapping[str, Any]) -> list[Shard]:
    """The shards of a cell of a manifest, in order."""
    size, samples = cell["shard_size"], cell["samples"]
    return [Shard(cell["folder"], start, min(start + size, samples)) for start in range(0, samples, size)]


def manifest_shards(manifest: Mapping[str, Any]) -> Iterator[Shard]:
    """Every shard that a run's manifest promises, in the order of its cells."""
    for cell in manifest["cells"]:
        yield from cell_shards(cell)
