"""What a tar or zip archive holds, from its headers alone, and the bytes of one member.

Archives come from elsewhere, so nothing in them is believed: whatever a parser runs into is a `UserError` that names
the archive, or an `OSError` of the one member that is read.
"""

import io
import json
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from robustbench_twicing.data.foreign_names import foreign_file
from robustbench_twicing.errors import UserError
from robustbench_twicing.machine.remote import RemotePath

# How a member lies in its archive.
_AS_IS, _STORED, _DEFLATED = range(3)

_MOST_BYTES = 2**29
"""Of one file: more is no picture, and could be a bomb."""


class Member(NamedTuple):
    """A file or folder. What follows `is_folder` is its place, for `read_member`."""

    path: str
    is_folder: bool
    kind: int
    offset: int
    """Of the data, or of a zip member's local header, in bytes."""
    packed: int
    """Bytes in the archive."""
    size: int
    """Bytes of the file."""
    crc: int
    """CRC-32 of the file; in a tar, which has none, 0."""


PLACE_FIELDS = 5


class Link(NamedTuple):
    """A member without bytes of its own: the same file as another one."""

    path: str
    target: str
    """As it stands in the archive: of a hard link from its top, of a symbolic one from the folder of `path`."""
    hard: bool


class Odd(NamedTuple):
    """A member that is no file: a device, a sparse file, a pipe."""

    path: str
    what: str


_KINDS: dict[str, type[Member] | type[Link] | type[Odd]] = {kind.__name__: kind for kind in (Member, Link, Odd)}


def members(archive: Path) -> Iterator[Member | Link | Odd]:
    """Everything in an archive. Raises `UserError` if it is damaged, cut short, or compressed as a whole.

    Of one that lies elsewhere the list is kept in the cache: a tar is asked for each of its headers.
    """
    if not isinstance(archive, RemotePath):
        yield from _members(archive)
        return
    with _believed(archive):
        listed = archive.derived("members", lambda: _as_json(_members(archive)))
    for kind, *values in json.loads(listed):
        yield _KINDS[kind](*values)


def _as_json(found: Iterator[Member | Link | Odd]) -> bytes:
    return json.dumps([[type(member).__name__, *member] for member in found]).encode()


def _members(archive: Path) -> Iterator[Member | Link | Odd]:
    with _believed(archive):
        with archive.open("rb") as file:
            start = file.read(512)
        for magic, ending in COMPRESSED.items():
            if start.startswith(magic):
                raise UserError(
                    f"{archive} is compressed as a whole ({ending}): to reach one image, all before it must be "
                    "unpacked.",
                    f"Decompress it once with `{_UNPACK[ending]} {archive.name}`; the .tar is then read in place.",
                )
        if start.startswith(b"PK"):
            yield from _zip_members(archive)
        elif _checksum_is_right(start):
            yield from _tar_members(archive)
        else:
            what = foreign_file(archive.name, start)
            looks = f" It looks like {what}, which is not read here." if what else ""
            raise UserError(
                f"{archive} is neither a folder nor a tar or zip archive.{looks}", "Pass the data set itself."
            )


@contextmanager
def _believed(archive: Path) -> Iterator[None]:
    try:
        yield
    except (UserError, MemoryError):
        raise
    except OSError as error:
        raise UserError(
            f"{archive} cannot be read: {error.strerror or error}.",
            "Check its permissions, and where a symbolic link leads.",
        ) from None
    except Exception as error:  # noqa: BLE001 - on damaged data, a parser raises whatever its reading runs into
        raise damaged(archive, f"{type(error).__name__}: {error}") from None


def damaged(archive: Path, why: str) -> UserError:
    """The `UserError` for an archive that is not what it should be."""
    return UserError(
        f"The archive {archive} is damaged or cut short: {why}.",
        "Fetch it again and compare its size or checksum with the publisher's.",
    )


def read_member(archive: Path, kind: int, offset: int, packed: int, size: int, crc: int) -> bytes:
    """The bytes of a member at this place (see `Member`), in a zip held to its checksum. Raises `OSError`."""
    if max(packed, size) > _MOST_BYTES:
        raise OSError(f"{max(packed, size):,} bytes, and no image has more than {_MOST_BYTES:,}")
    try:
        # Opened for each read: no file position is shared between threads, and nothing has to be closed later.
        with archive.open("rb") as file:
            if kind != _AS_IS:
                file.seek(offset)
                offset = _behind_local_header(file.read(30), offset)
            file.seek(offset)
            content = file.read(packed)
    except (OverflowError, ValueError, struct.error) as error:
        raise OSError(f"the archive is damaged here ({error})") from None
    if len(content) < packed:
        raise OSError("the archive ends inside this member")
    if kind == _AS_IS:
        return content
    if kind == _DEFLATED:
        try:
            content = zlib.decompressobj(-15).decompress(content, size + 1)
        except zlib.error as error:
            raise OSError(f"cannot be decompressed ({error})") from None
    if len(content) != size or zlib.crc32(content) != crc:
        raise OSError("its length or checksum is not what the archive says: the archive is damaged here")
    return content


def raw_place(archive: Path, kind: int, offset: int, packed: int, size: int, crc: int) -> tuple[Path, int, int] | None:
    """(archive, offset, bytes) of a member that lies there as it is; None in a zip,
    whose checksum must be seen, and where the archive is not on this machine's disk."""
    return (archive, offset, size) if kind == _AS_IS and not isinstance(archive, RemotePath) else None


def _behind_local_header(header: bytes, offset: int) -> int:
    """Where a zip member's data begin: its local header has two lengths that only it knows (APPNOTE 4.3.7)."""
    if not header.startswith(b"PK\x03\x04"):
        raise ValueError("no member begins where it should")
    name, extra = struct.unpack("<HH", header[26:30])
    return int(offset + 30 + name + extra)


COMPRESSED = {b"\x1f\x8b": ".gz", b"BZh": ".bz2", b"\xfd7zXZ\x00": ".xz", b"\x28\xb5\x2f\xfd": ".zst"}
"""First bytes of files that are compressed as a whole, and their endings."""

_UNPACK = {".gz": "gunzip", ".bz2": "bunzip2", ".xz": "unxz", ".zst": "unzstd"}


# --- zip -------------------------------------------------------------------------------------------------------------


def _zip_members(archive: Path) -> Iterator[Member | Link | Odd]:
    try:
        with archive.open("rb") as whole, zipfile.ZipFile(whole) as file:
            entries = file.infolist()
    except zipfile.BadZipFile as error:
        raise damaged(archive, f"its table of contents is missing or wrong ({error})") from None
    kinds = {zipfile.ZIP_STORED: _STORED, zipfile.ZIP_DEFLATED: _DEFLATED}
    end = archive.stat().st_size
    for entry in entries:
        if entry.flag_bits & 1 or entry.compress_type not in kinds:
            raise UserError(
                f"{archive} holds {entry.filename}, which is encrypted or compressed in an unusual way.",
                "Zip archives are read with members stored or deflated; unpack this one.",
            )
        if not 0 <= entry.header_offset < end:
            raise damaged(archive, f"{entry.filename} begins at byte {entry.header_offset:,}, the file ends at {end:,}")
        kind, where = kinds[entry.compress_type], entry.header_offset
        if stat.S_ISLNK(entry.external_attr >> 16):
            try:
                target = read_member(archive, kind, where, entry.compress_size, entry.file_size, entry.CRC)
            except OSError as error:
                yield Odd(entry.filename, f"a symbolic link that cannot be read ({error})")
            else:
                yield Link(entry.filename, target.decode("utf-8", "surrogateescape"), hard=False)
        else:
            sizes = (entry.compress_size, entry.file_size)
            yield Member(entry.filename, entry.is_dir(), kind, where, *sizes, entry.CRC)


# --- tar -------------------------------------------------------------------------------------------------------------

_FILES, _LINKS = b"07\0", b"12"
_WITHOUT_DATA = b"123456"
_ODD = {b"3": "a device", b"4": "a device", b"6": "a pipe", b"S": "a sparse file"}


def _tar_members(archive: Path) -> Iterator[Member | Link | Odd]:
    """The members of a tar, from its headers alone.

    Written out because ImageNet-C's archives hold a million members each: this takes a quarter of the time of the
    standard library's `tarfile` (12 and 44 µs a member on 2 busy cores). Understands ustar prefixes, GNU long names,
    and pax paths and sizes.
    """
    end = archive.stat().st_size
    position = 0
    extended: dict[str, str] = {}  # what headers before the member said about it
    with archive.open("rb", buffering=0) as file:
        while position < end:
            file.seek(position)
            header = file.read(512)
            if not any(header):
                behind = _next_archive(file, position)
                if behind is not None:
                    yield Odd(f"byte {behind:,} of {archive.name}", "another archive behind the end of this one")
                return
            if not _checksum_is_right(header):
                raise damaged(archive, f"no member begins at byte {position:,}, where one should")
            kind = header[156:157]
            about_next = kind in b"LKxg"
            size = int(extended["size"]) if "size" in extended and not about_next else _number(header[124:136])
            if kind in _WITHOUT_DATA:
                size = 0  # some write the size of the file that a link leads to
            if size < 0:
                raise damaged(archive, f"a member of {size} bytes at byte {position:,}")
            data = position + 512
            if kind == b"S":
                data = _behind_sparse_headers(file, header, data)
            position = data + -(-size // 512) * 512
            if data + size > end:
                raise damaged(archive, f"its last member ends at byte {data + size:,}, the file at {end:,}")
            if about_next:
                file.seek(data)
                extended |= _extended(archive, kind, file.read(size))
                continue
            path = extended.get("path") or _tar_path(header)
            if "sparse" in extended:
                yield Odd(path, _ODD[b"S"])
            elif kind in _FILES or kind == b"5":
                yield Member(path, kind == b"5" or path.endswith("/"), _AS_IS, data, size, size, 0)
            elif kind in _LINKS:
                yield Link(path, extended.get("linkpath") or _text(header[157:257]), hard=kind == b"1")
            elif kind in _ODD:
                yield Odd(path, _ODD[kind])
            extended = {}


def _next_archive(file: IO[bytes] | io.RawIOBase, position: int) -> int | None:
    """Where a tar that was appended to another as it is begins; tar itself would not unpack it either."""
    file.seek(position)
    while block := file.read(2**20):
        rest = block.lstrip(b"\0")
        if rest:
            start = position + (len(block) - len(rest)) // 512 * 512
            file.seek(start)
            return start if _checksum_is_right(file.read(512)) else None
        position += len(block)
    return None


def _behind_sparse_headers(file: IO[bytes] | io.RawIOBase, header: bytes, data: int) -> int:
    """Where the data of a GNU sparse member begin: further headers may follow the first."""
    more = header[482]
    while more:
        block = file.read(512)
        more = block[504]
        data += 512
    return data


def _extended(archive: Path, kind: bytes, content: bytes) -> dict[str, str]:
    if kind in b"LK":
        return {"path" if kind == b"L" else "linkpath": _text(content)}
    fields = {}
    while kind == b"x" and content:  # "LENGTH KEY=VALUE\n", the length counting itself (POSIX pax)
        length, _, rest = content.partition(b" ")
        if not length.isdigit() or not len(length) < int(length) <= len(content):
            raise damaged(archive, "an extended header is not what POSIX says")
        key, _, value = rest[: int(length) - len(length) - 2].partition(b"=")
        if key in (b"path", b"linkpath") or (key == b"size" and value.isdigit()):
            fields[key.decode()] = _text(value)
        elif key.startswith(b"GNU.sparse."):
            fields["sparse"] = "yes"
        content = content[int(length) :]
    return fields


def _tar_path(header: bytes) -> str:
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
    name = _text(header[:100])
    return f"{prefix}/{name}" if prefix else name


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _number(field: bytes) -> int:
    if field[0] & 0x80:  # GNU: a binary number, for 8 GiB and more
        return int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
    return int(field.strip(b" \0") or b"0", 8)


def _checksum_is_right(header: bytes) -> bool:
    # The sum of all bytes, those of the field itself counted as spaces. Adler-32's low half is the sum of all bytes and
    # one, modulo 65521: enough here, and several times faster than sum().
    field = header[148:156]
    counted = (zlib.adler32(header) & 0xFFFF) - 1 - sum(field) + 8 * ord(" ")
    try:
        return len(header) == 512 and (counted - _number(field)) % 65521 == 0
    except (ValueError, IndexError):
        return False
