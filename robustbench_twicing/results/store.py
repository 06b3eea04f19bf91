"""The run folder: a manifest, and records in shards that are either whole or not there.

    run.json                            what was run, with what, where
    records/<cell>/<range>-<sha>.parquet  one file per finished shard of a cell
    summary.csv                         a row per model and threat, recomputed from the records

A shard's folder is named by the content that decides its numbers (weights, threat, recipe, data, seed), and its file by
its sample range and the checksum of its bytes. So a run resumes where it stopped, results of different settings never
mix, and a file that was cut short or altered is noticed and computed again. The batch size and the device are not in
the key.
"""

import errno
import hashlib
import io
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from robustbench_twicing.errors import UserError
from robustbench_twicing.machine.remote import RemotePath
from robustbench_twicing.results.manifest import MANIFEST, Manifest, Shard, parse_manifest, written
from robustbench_twicing.spec.records import RECORDS as COLUMNS_OF
from robustbench_twicing.spec.records import SCHEMA_VERSION, Column
from robustbench_twicing.spec.values import content_hash

RUNS = Path("results") / "runs"
"""Where run folders go unless the user says otherwise."""

RECORDS, SUMMARY, LOCK = "records", "summary.csv", ".lock"
IMAGES, ARRAYS = "images", "images.npz"
"""Where a run keeps images, and the file of each cell that holds their values."""

_TYPES = {"string": pa.string(), "int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_()}


def _schema(columns: Sequence[Column]) -> pa.Schema:
    fields = [pa.field(column.name, _TYPES[column.type], nullable=column.type == "float64") for column in columns]
    return pa.schema(fields, metadata={"schema_version": str(SCHEMA_VERSION)})


SCHEMAS = {task: _schema(columns) for task, columns in COLUMNS_OF.items()}
"""What a shard holds, by task: exactly these columns, in this order."""
SCHEMA = SCHEMAS["images"]


def cell_folder(model: str, threat: str, decides: Mapping[str, Any]) -> str:
    """Folder name of a cell, such as `deit-tw.pgd-linf-1of255.0f3a…`. `decides` is what its numbers depend on."""
    readable = f"{model}.{threat}".replace("/", "of")
    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in readable)[:80]
    return f"{safe}.{content_hash({'schema': SCHEMA_VERSION, **decides})}"


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what a disk can do to us into a `UserError` that says what to do. Nothing finished is lost."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"No space left on the disk that holds {path}.",
                "Finished shards are kept. Free some space and run the same command again.",
            ) from None
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise UserError(
                f"{path} cannot be written: {error.strerror}.", "Pass --out with a writable folder."
            ) from None
        if error.errno in (errno.ENOTDIR, errno.EEXIST):
            raise UserError(f"{path} is not a folder.", "Pass --out with the name of a folder.") from None
        raise UserError(f"{path} cannot be used: {error.strerror or error}.", "Name another place.") from None


def require_writable(folder: Path) -> None:
    """Make a folder, and raise `UserError` now rather than after the work if nothing can be written into it."""
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def is_there(path: Path) -> bool:
    """Whether a file or folder exists. Raises `UserError` where nobody may look."""
    try:
        return path.exists()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.", "Check the name and its permissions.") from None


def unfinished(path: Path) -> Path:
    """A new empty file beside `path`, to be filled and given its name, with the permissions that the umask leaves."""
    if not path.name:  # such as "." or "/"
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    temporary = path.with_name(f".{secrets.token_hex(8)}.part")
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    return temporary


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under its final name only when all of it is on the disk."""
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = unfinished(path)
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


class RunFolder:
    """One run on the disk; what is written into it is put `elsewhere` too, if that is given (`results.elsewhere`)."""

    def __init__(self, path: Path, elsewhere: RemotePath | None = None) -> None:
        self.path, self.elsewhere = path, elsewhere
        self.remarks: list[str] = []
        """What a user should be told about this run: what was damaged, taken over or continued."""

    # --- manifest

    def manifest(self) -> Manifest:
        """What run.json says. Raises `UserError` if this is no run folder, or its manifest was altered."""
        file = self.path / MANIFEST
        try:
            content = file.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(
                f"{self.path} is not a run folder: it has no {MANIFEST}.", "Pass the folder that a run printed."
            ) from None
        except OSError as error:
            raise UserError(f"{file} cannot be read: {error.strerror}.", "Run again into another folder.") from None
        return parse_manifest(content, file)

    def exists(self) -> bool:
        """Whether a run was begun here."""
        return is_there(self.path / MANIFEST)

    def write_manifest(self, manifest: Manifest) -> None:
        """Replace run.json."""
        self._write(MANIFEST, written(manifest))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from writing here. Raises `UserError` if one does already, or nobody may write."""
        self._require_writable_elsewhere()
        with explained(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / LOCK, timeout=0)
            try:
                lock.acquire()
            except Timeout:
                raise UserError(
                    f"Another process is writing to {self.path}.",
                    "Wait for it to end, or pass --out with another folder.",
                ) from None
        try:
            yield
        finally:
            lock.release()

    # --- records

    def files_of(self, shard: Shard) -> list[Path]:
        """The files under a shard's name; their bytes are not looked at."""
        return sorted((self.path / RECORDS / shard.cell).glob(f"{_span(shard)}-*.parquet"))

    def whole_files(self, shard: Shard) -> dict[Path, bytes]:
        """The files under a shard's name whose bytes are those that the name says, with their bytes.

        Raises `UserError` for one that may not be read.
        """
        found = {}
        for file in self.files_of(shard):
            try:
                content = file.read_bytes()
            except FileNotFoundError:
                continue
            except OSError as error:
                raise UserError(f"{file} cannot be read: {error.strerror}.", "Check its permissions.") from None
            if file.stem.rpartition("-")[2] == _checksum(content):
                found[file] = content
        return found

    def set_aside(self, file: Path) -> Path:
        """Rename a shard that does not count, so that nobody takes it for one. Only for who holds the lock."""
        with explained(file):
            renamed = file.rename(file.with_suffix(".damaged"))
        self._gone(file)
        return renamed

    def retire(self, shards: Iterable[Shard]) -> None:
        """Rename these shards, which are to be computed anew. Only for who holds the lock."""
        for file in [file for shard in shards for file in self.files_of(shard)]:
            with explained(file):
                file.rename(file.with_suffix(".replaced"))
            self._gone(file)

    def remove_retired(self) -> None:
        """Remove what `retire` renamed, as the new ones are there."""
        for file in sorted((self.path / RECORDS).glob("*/*.replaced")):
            with explained(file):
                file.unlink(missing_ok=True)

    def copy_shard(self, shard: Shard, other: "RunFolder") -> bool:
        """Take a finished shard over from another run, which is left as it is. False if it has none that is whole."""
        try:
            found = other.whole_files(shard)
        except UserError:  # unreadable: it will be computed
            return False
        if len(found) != 1:
            return False
        ((file, content),) = found.items()
        self._write(f"{RECORDS}/{shard.cell}/{file.name}", content)
        return True

    def damaged(self) -> list[Path]:
        """Shards that were found cut short or altered, and set aside."""
        return sorted((self.path / RECORDS).glob("*/*.damaged"))

    def write_shard(self, shard: Shard, rows: pd.DataFrame) -> Path:
        """Keep the records of one finished shard; returns its file."""
        name, content = file_of_rows(shard, rows)
        return self._write(f"{RECORDS}/{shard.cell}/{name}", content)

    def keep(self, shard: Shard, name: str, content: bytes) -> None:
        """Keep the file of one finished shard in place of those that were there, of a module computed anew."""
        file = self._write(f"{RECORDS}/{shard.cell}/{name}", content)
        for other in self.files_of(shard):
            if other != file:
                other.unlink()
                self._gone(other)

    def write_summary(self, summary: pd.DataFrame) -> None:
        """Replace summary.csv."""
        self._write(SUMMARY, as_csv(summary))

    # --- elsewhere

    def put_the_rest(self) -> None:
        """Put elsewhere what is not there yet, and remove what is no longer here. Raises `UserError` if that fails."""
        if self.elsewhere is None:
            return
        here = {file.relative_to(self.path).as_posix(): file for file in _travelling(self.path)}
        try:
            there = self.elsewhere.files()
            for name, file in here.items():
                if name in (MANIFEST, SUMMARY) or there.get(name) != file.stat().st_size:
                    (self.elsewhere / name).write_bytes(file.read_bytes())
            for name in there.keys() - here.keys():
                if name.startswith(f"{RECORDS}/"):
                    (self.elsewhere / name).unlink(missing_ok=True)
        except OSError as error:
            raise UserError(
                f"The run is in {self.path}, and not all of it at {self.elsewhere}: {error.strerror or error}.",
                "Check the address and what your credentials allow; the same command again puts the rest there.",
            ) from None
        self.remarks.append(f"The run is at {self.elsewhere}; {self.path} is the working copy.")

    def _write(self, name: str, content: bytes) -> Path:
        """A file of the run, here and elsewhere; where the network does not hold, `put_the_rest` does it later."""
        write_whole(self.path / name, content)
        if self.elsewhere is not None:
            with suppress(OSError):
                (self.elsewhere / name).write_bytes(content)
        return self.path / name

    def _require_writable_elsewhere(self) -> None:
        """Now rather than after the work."""
        if self.elsewhere is None:
            return
        try:
            (self.elsewhere / ".writable").write_bytes(b"")
            (self.elsewhere / ".writable").unlink(missing_ok=True)
        except OSError as error:
            raise UserError(
                f"Nothing can be written to {self.elsewhere}: {error.strerror or error}.",
                "Check the address and what your credentials allow, or pass --out with a folder.",
            ) from None

    def _gone(self, file: Path) -> None:
        if self.elsewhere is not None:
            with suppress(OSError):
                (self.elsewhere / file.relative_to(self.path).as_posix()).unlink(missing_ok=True)


def _travelling(folder: Path) -> list[Path]:
    """The files of a run that are put elsewhere: all but those that are half written or do not count; run.json last."""
    found = [
        file
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not file.name.startswith(".") and file.suffix not in (".damaged", ".replaced")
    ]
    return sorted(found, key=lambda file: file == folder / MANIFEST)


def as_csv(table: pd.DataFrame) -> bytes:
    """A table with every digit of its numbers, and no text that is a formula."""
    return table.map(no_formula).to_csv(index=False, lineterminator="\n").encode()


def no_formula(value: Any) -> Any:
    """Text that a spreadsheet would compute, such as a model's name, behind an apostrophe."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value


def file_of_rows(shard: Shard, rows: pd.DataFrame) -> tuple[str, bytes]:
    """Name and content of the file of a shard with these records."""
    schema = next(one for one in SCHEMAS.values() if set(one.names) <= set(rows))  # of the task that they are of
    return shard_file(shard, pa.Table.from_pandas(rows[schema.names], schema=schema, preserve_index=False))


def shard_file(shard: Shard, table: pa.Table) -> tuple[str, bytes]:
    """Name and content of the file of a shard with these records."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    content = buffer.getvalue()
    return f"{_span(shard)}-{_checksum(content)}.parquet", content


def _span(shard: Shard) -> str:
    return f"{shard.start:07d}-{shard.stop:07d}"


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
