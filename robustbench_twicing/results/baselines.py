"""Accepted numbers: what a gate compares a run with, and who accepted it, when and why.

    baseline.json     what was accepted, by whom; the manifest of the run; the checksum of the records
    records.parquet   of each record only what a comparison needs

Small enough to commit. Written whole or not at all.
"""

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from robustbench_twicing import __version__
from robustbench_twicing.errors import UserError
from robustbench_twicing.results.acceptance import refuse_table
from robustbench_twicing.results.manifest import Manifest, refuse_other_hash, written
from robustbench_twicing.results.of_task import tables_of
from robustbench_twicing.results.parse import json_object, parquet_table, typed
from robustbench_twicing.results.run import Run
from robustbench_twicing.results.store import SCHEMAS, is_there, write_whole
from robustbench_twicing.results.used import Moment, Said
from robustbench_twicing.spec.records import SCHEMA_VERSION, reader_of
from robustbench_twicing.spec.values import AS_WRITTEN, Frozen

FORMAT = 2
"""Raised when baseline.json or the columns kept change their meaning."""

BASELINES = Path("results") / "baselines"
"""Where baselines go unless the user says otherwise."""

MANIFEST, RECORDS = "baseline.json", "records.parquet"

_AGAIN = "Restore the file (Git LFS pointers need `git lfs pull`), or accept a run again."


class Acceptance(Frozen):
    """Who took which run for right."""

    who: Said
    when: Moment
    why: Said
    run: Said
    """Its folder at that time."""
    run_started: Moment
    weights: Mapping[str, str]
    """The weights' hash, by model."""


class BaselineManifest(Frozen):
    """What baseline.json says."""

    format: int = FORMAT
    schema_version: int = SCHEMA_VERSION
    made_by: str
    accepted: Acceptance
    earlier: tuple[Acceptance, ...]
    """What was accepted here before, newest first."""
    run: Manifest
    """Of the accepted run."""
    records: int
    sha256: str
    """Of the file of records."""


@dataclass(frozen=True, eq=False)
class Baseline:
    """A baseline, read."""

    path: Path
    manifest: BaselineManifest
    records: pd.DataFrame
    """One row per (model, threat, sample), with the columns that its task keeps (`results.of_task`)."""


def accept(run: Run, path: Path, *, who: str, why: str) -> Baseline:
    """Make a finished run the baseline in the folder `path`, in place of one that may be there.

    Who accepted what before is kept in `earlier`. Raises `UserError` if the run (`results.run.load_finished`) has no
    answered record, or `path` holds something that is no baseline.
    """
    if not (run.records["status"] == "ok").any():
        raise UserError(f"The run in {run.path} has no answered sample.", "Look at the records' error column.")
    earlier: tuple[Acceptance, ...] = ()
    if (path / MANIFEST).exists():
        before = _manifest(path)
        earlier = (before.accepted, *before.earlier)
    elif path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path} exists and is no baseline.", "Name another place with --to.")
    content = _packed(run)
    accepted = Acceptance(
        who=who,
        when=datetime.now(UTC).isoformat(timespec="seconds"),
        why=why,
        run=str(run.path),
        run_started=run.manifest.started,
        weights={name: run.manifest.models[name].weights_hash for name in run.models},
    )
    manifest = BaselineManifest(
        made_by=f"twicing-bench {__version__}",
        accepted=accepted,
        earlier=earlier,
        run=run.manifest,
        records=len(run.records),
        sha256=hashlib.sha256(content).hexdigest(),
    )
    # Records first: between the two writes the checksum tells that they do not belong together.
    write_whole(path / RECORDS, content)
    write_whole(path / MANIFEST, written(manifest))
    return load_baseline(path)


def load_baseline(path: Path) -> Baseline:
    """Read a baseline, and check its records as those of a run are checked (`results.acceptance`).

    `path` is its folder, or the name that `baseline accept` gave it: that of the plan (in
    results/baselines). Raises `UserError` if there is none, if it is damaged or was altered, or if another version made
    it.
    """
    path = _folder(path)
    manifest, file = _manifest(path), path / RECORDS
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}.", "Accept a run again.") from None
    if hashlib.sha256(content).hexdigest() != manifest.sha256:
        raise UserError(f"{file} is damaged: its bytes are not those that {MANIFEST} names.", _AGAIN)
    table = parquet_table(content, file, _AGAIN)
    refuse_table(table, tables_of(manifest.run).kept, manifest.run, str(file), _AGAIN)
    return Baseline(path, manifest, table.to_pandas())


def _folder(path: Path) -> Path:
    """The folder that is meant by it, or by the plain name of a baseline."""
    named = BASELINES / path
    return named if len(path.parts) == 1 and not is_there(path / MANIFEST) and is_there(named / MANIFEST) else path


def _packed(run: Run) -> bytes:
    """Parquet bytes of the kept columns, the same for the same records."""
    kept = tables_of(run.manifest).kept
    schema = pa.schema([SCHEMAS[run.manifest.plan.task].field(name) for name in kept])
    table = pa.Table.from_pandas(run.records[list(kept)], schema=schema, preserve_index=False)
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(None), buffer, compression="zstd")
    return buffer.getvalue()


def _manifest(path: Path) -> BaselineManifest:
    file = path / MANIFEST
    try:
        content = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        known = ", ".join(sorted(place.parent.name for place in BASELINES.glob(f"*/{MANIFEST}")))
        there = f"In {BASELINES}: {known}. " if known else ""
        raise UserError(
            f"{path} is not a baseline: it has no {MANIFEST}.",
            f"{there}Make one of a run that you trust: twicing-bench baseline accept RUN --why REASON.",
        ) from None
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}.", "Accept a run again.") from None
    found = json_object(content, file, _AGAIN)
    _refuse_other_version(found, path)
    manifest = typed(BaselineManifest, found, file, _AGAIN, **AS_WRITTEN)
    refuse_other_hash(found["run"], manifest.run, file, _AGAIN)
    return manifest


def _refuse_other_version(found: Mapping[str, Any], path: Path) -> None:
    form, schema = found.get("format"), found.get("schema_version")
    if (form, schema) == (FORMAT, SCHEMA_VERSION):
        return
    raise UserError(
        f"The baseline {path} was made by {found.get('made_by', 'an unknown version')} with format {form!r} and record "
        f"schema {schema!r}; this version reads format {FORMAT} and schema {SCHEMA_VERSION}.",
        f"Compare with {reader_of(schema)}, or accept a run of this version.",
    )
