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
from functools import cache, cached_property
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
        digest.update(f"{document.id}\0{document.text}\0".encode())
    return digest.hexdigest()[:12]


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


def _parquet(path: Path) -> TextsInMemory:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        column = pq.read_table(path, columns=["text"])["text"].cast(pa.string()).to_pylist()
    except (pa.ArrowException, KeyError, OSError) as error:
        said = f"{path} has no column `text` that can be read: {str(error).splitlines()[0][:200]}"
        raise UserError(said, "One document a row, in a column called text.") from None
    rows = [Document(f"row-{number:06d}", text) for number, text in enumerate(column) if text]
    return TextsInMemory(path.name, tuple(rows))
