"""What the run folders hold, and what of it no manifest names any more. No torch.

Shards are named by content, so they outlive the plan they were made for: old weights, a smaller limit, another seed in
the same folder. They are never mixed into a result, but they take space.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from robustbench_twicing.errors import UserError
from robustbench_twicing.results.begun import begun
from robustbench_twicing.results.history import INDEX, forget
from robustbench_twicing.results.manifest import MANIFEST
from robustbench_twicing.results.store import LOCK, RECORDS, RUNS, SUMMARY, RunFolder, explained


@dataclass(frozen=True)
class Holding:
    """What one run folder holds."""

    folder: Path
    status: str
    """Of the run: finished, running (or interrupted), or unreadable; then nothing in it is removed."""
    shards: int
    """Finished shards that the manifest names."""
    size: int
    """Their bytes."""
    stray: tuple[Path, ...]
    """Shards that the manifest does not name, damaged and replaced ones, and pieces of interrupted writing."""
    stray_size: int
    """Their bytes."""


def survey(runs: Path = RUNS) -> list[Holding]:
    """Look at every run folder, by name. Nothing is changed."""
    return [_holding(path) for path in sorted(runs.glob("*")) if path.is_dir()]


def prune(runs: Path = RUNS) -> tuple[list[Holding], list[str]]:
    """Remove what is stray: the holdings as they were, and what was left alone and why.

    A folder that another process writes to is left alone. Raises `UserError` if a file cannot be removed.
    """
    pruned, left_alone = [], []
    for path in sorted(path for path in runs.glob("*") if path.is_dir()):
        if not _holding(path).stray:
            continue
        try:
            with RunFolder(path).locked():
                holding = _holding(path)  # again, now that nobody adds to it
                for file in holding.stray:
                    with explained(file):
                        file.unlink(missing_ok=True)
                for folder in {file.parent for file in holding.stray if file.parent.parent.name == RECORDS}:
                    if not any(folder.iterdir()):
                        folder.rmdir()
        except UserError as error:
            left_alone.append(error.message)
            continue
        pruned.append(holding)
    return pruned, left_alone


def thin_out(keep: int, runs: Path = RUNS) -> tuple[list[Holding], list[str]]:
    """Remove whole runs but the `keep` newest of each plan, and of those that no plan began: as `prune` says it.

    What a user put into their folders stays, and so does what cannot be read.
    """
    removed, left_alone = [], []
    seen: Counter[str] = Counter()
    for path, manifest in begun(runs):
        seen[manifest.name] += 1
        if seen[manifest.name] <= keep:
            continue
        try:
            with RunFolder(path).locked():
                holding = _holding(path)
                _remove(path)
        except UserError as error:
            left_alone.append(error.message)
            continue
        with suppress(OSError):  # something of the user's is in it
            path.rmdir()
        removed.append(holding)
    forget([holding.folder for holding in removed], runs.parent / INDEX.name)
    return removed, left_alone


def _remove(path: Path) -> None:
    """Everything that the tool wrote. The manifest last: until then it says what the rest is."""
    records = path / RECORDS
    for file in [*_files(path), path / SUMMARY, path / MANIFEST, path / LOCK]:
        with explained(file):
            file.unlink(missing_ok=True)
    for folder in [*records.glob("*/"), records]:
        with suppress(OSError):
            folder.rmdir()


def _holding(path: Path) -> Holding:
    folder = RunFolder(path)
    try:
        manifest = folder.manifest()
        named = [file for shard in manifest.shards for file in folder.files_of(shard)]
    except UserError:
        return Holding(path, "unreadable", 0, 0, (), 0)
    kept, files = set(named), list(_files(path))
    stray = tuple(file for file in files if file not in kept)
    return Holding(
        folder=path,
        status=manifest.status,
        shards=len(named),
        size=_size(named),
        stray=stray,
        stray_size=_size(stray),
    )


def _files(path: Path) -> Iterator[Path]:
    """Shards, damaged and replaced ones, and pieces of interrupted writing; nothing that a user may have put here."""
    for ending in ("parquet", "damaged", "replaced"):
        yield from sorted((path / RECORDS).glob(f"*/*.{ending}"))
    yield from sorted(path.rglob(".*.part"))


def _size(files: Iterable[Path]) -> int:
    """Bytes of those files that are still there: a run at work removes its own pieces."""
    total = 0
    for file in files:
        with suppress(FileNotFoundError):
            total += file.stat().st_size
    return total
