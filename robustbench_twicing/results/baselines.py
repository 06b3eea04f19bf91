"""Accepted numbers: what a gate compares a run with, and who accepted it, when and why.

    baseline.json     what was accepted, by whom; the checksum of the records
    records.parquet   of each record only what a comparison needs

Small enough to commit. Written whole or not at all.
"""

import hashlib
import io
import json
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
from robustbench_twicing.metrics.paired import MUST_AGREE
from robustbench_twicing.results.store import Manifest, write_whole
from robustbench_twicing.spec.records import COLUMNS, SCHEMA_VERSION, reader_of

FORMAT = 1
"""Raised when baseline.json or the columns kept change their meaning."""

MANIFEST, RECORDS = "baseline.json", "records.parquet"

_KEPT = (
    *("model", "attention", "weights_hash", "kind", "attack", "eps", "suite", "corruption", "severity"),
    *MUST_AGREE,
    *("sample_id", "label", "status", "prediction", "correct"),
)
KEPT = tuple(column.name for column in COLUMNS if column.name in _KEPT)
"""Columns of `records.py` that a baseline holds."""


@dataclass(frozen=True, eq=False)
class Baseline:
    """A baseline, read."""

    path: Path
    manifest: Mapping[str, Any]
    records: pd.DataFrame
    """One row per (model, threat, sample), with the columns `KEPT`."""


def accept(
    records: pd.DataFrame, run: Mapping[str, Any], path: Path, *, run_folder: str, who: str, why: str
) -> Baseline:
    """Make a finished run the baseline in the folder `path`, in place of one that may be there.

    `run` is the run's manifest. Who accepted what before is kept in `earlier`, newest first. Raises `UserError` if the
    run is not finished, has no answered record, or `path` holds something that is no baseline.
    """
    if run["status"] != "finished":
        raise UserError(
            f"The run in {run_folder} is not finished.", "The command that began it, given again, continues it."
        )
    if not (records["status"] == "ok").any():
        raise UserError(f"The run in {run_folder} has no answered sample.", "Look at the records' error column.")
    earlier: list[Mapping[str, Any]] = []
    if (path / MANIFEST).exists():
        before = _manifest(path)
        earlier = [before["accepted"], *before["earlier"]]
    elif path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path} exists and is no baseline.", "Name another place with --to.")
    content = _packed(records)
    models = records.drop_duplicates("model").set_index("model")
    manifest = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "made_by": f"twicing-bench {__version__}",
        "accepted": {
            "who": who,
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "why": why,
            "run": run_folder,
            "run_started": run["started"],
            "weights": {str(name): str(hash_) for name, hash_ in models["weights_hash"].items()},
        },
        "earlier": earlier,
        "plan": run["plan"],
        "versions": run["versions"],
        "git": run["git"],
        "device": run["device"],
        "records": len(records),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    # Records first: between the two writes the checksum tells that they do not belong together.
    write_whole(path / RECORDS, content)
    write_whole(path / MANIFEST, (json.dumps(manifest, indent=2, ensure_ascii=False) + "\n").encode())
    return load_baseline(path)


def load_baseline(path: Path) -> Baseline:
    """Read a baseline. Raises `UserError` if there is none, if it is damaged, or if another version made it."""
    manifest = _manifest(path)
    try:
        content = (path / RECORDS).read_bytes()
    except OSError as error:
        raise UserError(f"{path / RECORDS} cannot be read: {error.strerror}.", "Accept a run again.") from None
    if hashlib.sha256(content).hexdigest() != manifest["sha256"]:
        raise UserError(
            f"{path / RECORDS} is damaged: its bytes are not those that {MANIFEST} names.",
            "Restore the file (Git LFS pointers need `git lfs pull`), or accept a run again.",
        )
    records = pq.ParquetFile(io.BytesIO(content)).read().to_pandas()
    return Baseline(path, manifest, records)


def _packed(records: pd.DataFrame) -> bytes:
    """Parquet bytes of the kept columns, the same for the same records."""
    table = pa.Table.from_pandas(records[list(KEPT)], preserve_index=False)
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(None), buffer, compression="zstd")
    return buffer.getvalue()


def _manifest(path: Path) -> Manifest:
    file = path / MANIFEST
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"{path} is not a baseline: it has no {MANIFEST}.",
            "Make one of a run that you trust: twicing-bench baseline accept RUN.",
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read: {error}.", "Accept a run again.") from None
    version = (content.get("format"), content.get("schema_version")) if isinstance(content, dict) else (None, None)
    if version != (FORMAT, SCHEMA_VERSION):
        made_by = content.get("made_by", "an unknown version") if isinstance(content, dict) else "something else"
        raise UserError(
            f"The baseline {path} was made by {made_by} with format {version[0]!r} and record schema {version[1]!r}; "
            f"this version reads format {FORMAT} and schema {SCHEMA_VERSION}.",
            f"Compare with {reader_of(version[1])}, or accept a run of this version.",
        )
    return Manifest(file, content)
