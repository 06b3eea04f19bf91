"""Texts, cut into documents: the one that ships with the tool, a text file, a column of a parquet file.

The text that ships is the language reference that Python 3.11.7 has for `help()` (pydoc_data.topics), English prose
with code, by the Python Software Foundation under the PSF licence (texts/LICENSE-PSF.txt). A paragraph that topics
repeat of each other stands once, in the first of them, so that none is in both parts; topics of less than 300 bytes are
left out.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from robustbench_twicing.catalog.locate import package_file
from robustbench_twicing.errors import UserError
from robustbench_twicing.spec.text import EMBEDDED_TEXT

_BLOCK = 16_384
"""Bytes of a text file that make one document, up to the end of a line."""
_LONGEST = 2**20
"""Bytes of a line; a longer one is cut."""


class Document(NamedTuple):
    """One text, with a name that is unique in its data set."""

    id: str
    text: str


@runtime_checkable
class Texts(Protocol):
    """Documents in a fixed order."""

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str:
        """Changes when a document or their order changes."""
        ...

    @property
    def ids(self) -> Sequence[str]: ...

    def read(self, position: int) -> Document:
        """One of them. Raises `UserError` if its file is not what it was."""
        ...


@dataclass(frozen=True)
class TextsInMemory:
    """A `Texts`."""

    name: str
    documents: tuple[Document, ...]

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint(self.documents)

    @cached_property
    def ids(self) -> Sequence[str]:
        return tuple(document.id for document in self.documents)

    def read(self, position: int) -> Document:
        return self.documents[position]


@dataclass(frozen=True)
class TextFile:
    """A text file of any size: only where its blocks lie is in memory. A `Texts`."""

    name: str
    path: Path
    fingerprint: str
    spans: tuple[tuple[int, int], ...]
    """First byte and length of each block."""

    @cached_property
    def ids(self) -> Sequence[str]:
        return tuple(f"block-{number:06d}" for number in range(len(self.spans)))

    def read(self, position: int) -> Document:
        start, length = self.spans[position]
        with self.path.open("rb") as file:
            file.seek(start)
            content = file.read(length)
        try:
            return Document(self.ids[position], content.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise _no_utf8(self.path, start + error.start) from None


@dataclass(frozen=True)
class ParquetTexts:
    """The rows of a parquet file that have a text: one row group at a time is in memory. A `Texts`."""

    name: str
    path: Path
    fingerprint: str
    ids: Sequence[str]
    rows: tuple[tuple[int, int], ...]
    """Row group of each, and its place in it."""

    def read(self, position: int) -> Document:
        group, place = self.rows[position]
        return Document(self.ids[position], _column(self.path, group, self.path.stat().st_mtime_ns)[place] or "")


def open_texts(text: str) -> Texts:
    """The text that ships, by its name, or a file. Raises `UserError` if there is none, or nothing in it."""
    if text == EMBEDDED_TEXT:
        return TextsInMemory(EMBEDDED_TEXT, embedded_text())
    path = Path(text).expanduser()
    if not path.is_file():
        raise UserError(f"There is no text {text!r}.", f"Name a text or parquet file, or {EMBEDDED_TEXT}.")
    found = _parquet(path) if path.suffix == ".parquet" else _text_file(path)
    if not found.ids:
        raise UserError(f"{path} is empty.", "Name a file with some text in it.")
    return found


@cache
def embedded_text(split: str = "test") -> tuple[Document, ...]:
    """The documents to test on (16, 73 kB), or to train on (49, 298 kB)."""
    lines = package_file(f"texts/{EMBEDDED_TEXT}.jsonl").read_text(encoding="utf-8").split("\n")
    rows = [json.loads(line) for line in lines if line]
    return tuple(Document(row["id"], row["text"]) for row in rows if row["split"] == split)


def fingerprint(documents: Sequence[Document]) -> str:
    """First 12 hex digits of the SHA-256 of all ids and texts, in order."""
    digest = hashlib.sha256()
    for document in documents:
        digest.update(_hashed(document))
    return digest.hexdigest()[:12]


def _hashed(document: Document) -> bytes:
    return f"{document.id}\0{document.text}\0".encode()


def _text_file(path: Path) -> TextFile:
    """Where the blocks lie, found in one pass that also checks that it is UTF-8 throughout."""
    digest, spans, start, length = hashlib.sha256(), list[tuple[int, int]](), 0, 0
    for line in _lines(path):
        digest.update(line)
        length += len(line)
        if length >= _BLOCK:
            spans.append((start, length))
            start, length = start + length, 0
    if length:
        spans.append((start, length))
    return TextFile(path.name, path, digest.hexdigest()[:12], tuple(spans))


def _lines(path: Path) -> Iterator[bytes]:
    """Lines, each of whole characters."""
    place, kept = 0, b""
    with path.open("rb") as file:
        while line := kept + file.readline(_LONGEST):
            kept = b""
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                # A line that was cut may end within a character.
                if error.start < len(line) - 3 or line.endswith(b"\n") or len(line) < _LONGEST:
                    raise _no_utf8(path, place + error.start) from None
                line, kept = line[: error.start], line[error.start :]
            place += len(line)
            yield line


def _no_utf8(path: Path, place: int) -> UserError:
    return UserError(f"{path} is no UTF-8: byte {place:,} belongs to no character.", "Convert it: iconv -t UTF-8.")


def _parquet(path: Path) -> ParquetTexts:
    rows = list[tuple[int, int]]()

    def documents() -> Iterator[Document]:
        number = 0
        for group in range(_groups(path)):
            for place, text in enumerate(_column(path, group, path.stat().st_mtime_ns)):
                if text:
                    rows.append((group, place))
                    yield Document(f"row-{number:06d}", text)
                number += 1

    names, digest = list[str](), hashlib.sha256()
    for document in documents():
        names.append(document.id)
        digest.update(_hashed(document))
    return ParquetTexts(path.name, path, digest.hexdigest()[:12], tuple(names), tuple(rows))


def _groups(path: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            return int(file.num_row_groups)
    except (pa.ArrowException, OSError) as error:
        raise _no_column(path, error) from None


@lru_cache(maxsize=1)
def _column(path: Path, group: int, written: int) -> list[str | None]:
    """Of a row group the column `text`. `written`: when, so that a file that was written anew is read anew."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            column = file.read_row_group(group, columns=["text"])["text"]
            found: list[str | None] = column.cast(pa.string()).to_pylist()
            return found
    except (pa.ArrowException, KeyError, OSError) as error:
        raise _no_column(path, error) from None


def _no_column(path: Path, error: Exception) -> UserError:
    said = f"{path} has no column `text` that can be read: {str(error).splitlines()[0][:200]}"
    return UserError(said, "One document a row, in a column called text.")
