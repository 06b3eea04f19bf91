"""A run as one file for strangers: everything that its numbers follow from, checksums, and nothing of the machine.

    run.json  records/CELL/FILE.parquet   as in a run folder (docs/run-folder.md)
    images/CELL/FILE.png …/images.npz     only if asked for: the images that were kept
    summary.csv  suites.csv               what is claimed
    SHA256SUMS                            of all of these, as sha256sum writes and checks it

Unpacked it is a run folder. No torch.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

import pandas as pd
import pyarrow as pa

from robustbench_twicing.errors import UserError
from robustbench_twicing.machine.remote import RemotePath
from robustbench_twicing.results.acceptance import refuse_lacking
from robustbench_twicing.results.manifest import MANIFEST, Shard, parse_manifest
from robustbench_twicing.results.parse import parquet_table
from robustbench_twicing.results.private import cleaned, cleaned_texts, names_of_this_machine
from robustbench_twicing.results.run import Run
from robustbench_twicing.results.store import (
    ARRAYS,
    IMAGES,
    RECORDS,
    SUMMARY,
    RunFolder,
    as_csv,
    explained,
    shard_file,
    unfinished,
)
from robustbench_twicing.spec.values import content_hash

SUITES, SUMS = "suites.csv", "SHA256SUMS"

_HINT = "The command that made it, given again, computes it again."


class Bundled(NamedTuple):
    """What was written."""

    path: Path
    files: int
    size: int
    still_named: tuple[str, ...]
    """Names of this machine that are left, each with its place: in ids of samples, which records hang on."""


def write_bundle(run: Run, path: Path, with_names: bool = False, images: bool = False) -> Bundled:
    """Write a whole run as a zip, the same bytes for the same run. Raises `UserError` for one that lacks records.

    Home folders, and the names of this user and host, are left out of what no number depends on, unless `with_names`;
    the hash of the plan, which holds the paths of weights, is then that of the plan without them. `images`: with those
    that `--keep-images` kept, of which there must be some.
    """
    if run.manifest.status != "finished":
        raise UserError(f"The run in {run.path} is not finished.", _HINT)
    refuse_lacking(f"The run in {run.path}", run.lacking, _HINT)
    kept = list(_kept(run)) if images else []
    if images and not kept:
        raise UserError(f"The run in {run.path} kept no images.", "Its command with --keep-images N keeps some.")
    names = {} if with_names else names_of_this_machine()
    sums = list[str]()
    with explained(path), _begun(path) as temporary, ZipFile(temporary, "w") as archive:
        pictures = ((name, (run.path / name).read_bytes()) for name in kept)
        for name, content in chain(_contents(run, names, clean=not with_names), pictures):
            _add(archive, name, content)
            sums.append(f"{hashlib.sha256(content).hexdigest()}  {name}\n")
        _add(archive, SUMS, "".join(sums).encode())
    return Bundled(path, len(sums), path.stat().st_size, tuple(_still_named(run, names)))


@contextmanager
def _begun(path: Path) -> Iterator[Path]:
    """A file to be filled, which then gets its name, or is put at its address."""
    if isinstance(path, RemotePath):
        with TemporaryDirectory() as folder:
            yield Path(folder) / "bundle.zip"
            path.write_bytes((Path(folder) / "bundle.zip").read_bytes())
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = unfinished(path)
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _contents(run: Run, names: dict[str, str], clean: bool) -> Iterator[tuple[str, bytes]]:
    manifest = run.manifest.model_dump(mode="json")
    if clean:
        manifest = cleaned_texts(manifest, names)
        manifest["command"][:1] = [Path(word).name for word in manifest["command"][:1]]
        manifest["plan_hash"] = content_hash(manifest["plan"])
    content = (json.dumps(manifest, indent=2, ensure_ascii=False) + "\n").encode()
    parse_manifest(content, run.path / MANIFEST)  # what a reader will do
    yield MANIFEST, content
    folder = RunFolder(run.path)
    for shard in run.manifest.shards:
        yield from _shard(folder, shard, names, clean)
    yield SUMMARY, as_csv(run.summary)
    yield SUITES, as_csv(claimed_of_suites(run.suites))


def _kept(run: Run) -> Iterator[str]:
    """The files of kept images, those of whole cells only (`ARRAYS` is written last)."""
    for entry in run.manifest.cells:
        place = run.path / IMAGES / entry.folder
        if (place / ARRAYS).is_file():
            files = [place / ARRAYS, *place.glob("*.png")]
            yield from sorted(file.relative_to(run.path).as_posix() for file in files)


def _shard(folder: RunFolder, shard: Shard, names: dict[str, str], clean: bool) -> Iterator[tuple[str, bytes]]:
    file, content = next(iter(folder.whole_files(shard).items()))
    rows = parquet_table(content, file, _HINT)
    errors = rows["error"].to_pylist()
    said = [cleaned(error, names) if error else error for error in errors] if clean else errors
    if said != errors:
        place = rows.schema.get_field_index("error")
        name, content = shard_file(shard, rows.set_column(place, rows.schema.field(place), pa.array(said, pa.string())))
    else:
        name = file.name
    yield f"{RECORDS}/{shard.cell}/{name}", content


def claimed_of_suites(suites: pd.DataFrame) -> pd.DataFrame:
    """Without what is no single value."""
    return suites.drop(columns="family_errors")


def _add(archive: ZipFile, name: str, content: bytes) -> None:
    member = ZipInfo(name)  # of 1980, so that the same run is the same file
    member.external_attr = 0o644 << 16
    archive.writestr(member, content, ZIP_STORED if name.endswith((".parquet", ".png", ".npz")) else ZIP_DEFLATED)


def _still_named(run: Run, names: dict[str, str]) -> Iterator[str]:
    rest = json.dumps(cleaned_texts(run.manifest.model_dump(mode="json"), names), ensure_ascii=False)
    if cleaned(rest, names) != rest:
        yield "names or settings in run.json"
    ids = set[str]().union(*(rows["sample_id"] for rows in run.cells.values()))
    if any(cleaned(sample, names) != sample for sample in ids):
        yield "ids of samples"
