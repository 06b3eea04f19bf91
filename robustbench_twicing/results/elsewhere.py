"""Runs and bundles that lie elsewhere (s3://, gs:// …): here is a working copy, and what it gains is put there too.

The working copy is a run folder under results/runs like any other: a run is computed and read there, so that a network
that does not hold costs no work. Shards are named by their content, so those that are here are not fetched again.
"""

import re
from pathlib import Path, PurePosixPath

from robustbench_twicing.errors import UserError
from robustbench_twicing.machine.remote import RemotePath, is_remote, place_of_text
from robustbench_twicing.results.manifest import MANIFEST
from robustbench_twicing.results.store import RECORDS, RUNS, SUMMARY, RunFolder, explained, write_whole
from robustbench_twicing.spec.values import content_hash


def here(run: str | Path) -> Path:
    """The folder of a run: itself, or the working copy of an address, brought up to what lies there.

    Raises `UserError` if there is no run at the address, or it cannot be read.
    """
    if not is_remote(run):
        return Path(run)
    address = _address(run)
    if not _fetched(address):
        raise UserError(
            f"{address} is not a run folder: it has no {MANIFEST}.", "Pass the address that a run was put at."
        )
    return working_copy(address)


def folder_of(out: Path) -> RunFolder:
    """The run folder that a run is written to; of an address with what lies there already. Raises `UserError`."""
    if not is_remote(out):
        return RunFolder(out)
    address = _address(out)
    _fetched(address)
    return RunFolder(working_copy(address), address)


def working_copy(address: RemotePath) -> Path:
    """Where the run of an address is on this machine."""
    readable = re.sub(r"[^\w.]+", "-", str(address))[-60:].strip("-.")
    return RUNS / f"{readable}-{content_hash(str(address))[:8]}"


def whole_file(path: str | Path) -> Path:
    """A file that is read here, such as a bundle; of an address the copy in the cache. Raises `UserError`."""
    place = place_of_text(path)
    if not isinstance(place, RemotePath):
        return place
    with explained(place):
        return place.local_copy()


def _address(text: str | Path) -> RemotePath:
    found = place_of_text(text)
    assert isinstance(found, RemotePath)
    return found


def _fetched(address: RemotePath) -> bool:
    """Bring the working copy up to what lies elsewhere; False if no run does. The manifest comes last."""
    copy = working_copy(address)
    with explained(address):
        there = {name: size for name, size in address.files().items() if _counts(name)}
        if MANIFEST not in there:
            return False
        for name, size in sorted(there.items(), key=lambda item: item[0] == MANIFEST):
            mine = copy / name
            settled = name not in (MANIFEST, SUMMARY)
            if settled and mine.exists() and mine.stat().st_size == size:
                continue
            write_whole(mine, (address / name).read_bytes())
            if name.startswith(f"{RECORDS}/"):  # one file for each shard: that of elsewhere
                span = mine.stem.rpartition("-")[0]
                for other in mine.parent.glob(f"{span}-*.parquet"):
                    if other != mine:
                        other.unlink()
    return True


def _counts(name: str) -> bool:
    """Whether it can be a file of a run: none that leaves the folder, and nothing half-written."""
    parts = PurePosixPath(name).parts
    return bool(parts) and not any(part == ".." or part.startswith(".") or "\\" in part for part in parts)
