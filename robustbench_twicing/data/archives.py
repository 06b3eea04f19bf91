"""A tree of files, whether it lies in a folder or inside tar and zip archives, which are read in place.

Paths inside a tree are written with "/" and without a leading one; "" is its top.
"""

import os
import struct
import zipfile
import zlib
from array import array
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from sys import intern
from typing import NamedTuple, Protocol, runtime_checkable

from robustbench_twicing.errors import UserError


class Listing(NamedTuple):
    """What one folder of a tree holds, by name, in alphabetical order. Hidden entries are left out."""

    folders: tuple[str, ...]
    files: tuple[str, ...]
    """Everything that is no folder, links that lead nowhere included."""


@runtime_checkable
class Tree(Protocol):
    """Files by path. Safe to read from several threads."""

    root: Path

    def listing(self, folder: str) -> Listing:
        """The contents of a folder. Raises `OSError`."""
        ...

    def size(self, path: str) -> int:
        """Bytes of the file. Raises `OSError`."""
        ...

    def read(self, path: str) -> bytes:
        """The file's contents. Raises `OSError`."""
        ...

    def where(self, path: str) -> str:
        """The file or folder as a message names it."""
        ...


def open_tree(root: Path) -> Tree:
    """The tree at `root`: a folder, an archive, or a folder that holds nothing but archives, taken as one tree.

    Every member of an archive is located once, here. Raises `UserError` if there is nothing, if it may not be read, or
    if an archive is damaged, cut short, or compressed as a whole.
    """
    try:
        if not root.exists():
            if root.is_symlink():
                raise UserError(f"{root} is a symbolic link that leads nowhere or in a circle.", "Repair the link.")
            raise UserError(f"Nothing at {root}.", "Check --data-dir; see docs/datasets.md.")
        if root.is_file():
            return ArchiveTree(root, [root])
        tree = FolderTree(root)
        top = tree.listing("")
    except OSError as error:
        raise unreadable_folder(str(root), error) from None
    archives = [root / name for name in top.files if name.lower().endswith((".tar", ".zip", *_COMPRESSED.values()))]
    return ArchiveTree(root, archives) if archives and not top.folders else tree


def unreadable_folder(where: str, error: OSError) -> UserError:
    """The `UserError` for a folder that cannot be listed: permission denied, a link in a circle, a lost disk."""
    return UserError(
        f"{where} cannot be read: {error.strerror or error}.",
        "Check its permissions, and where a symbolic link leads.",
    )


def join(folder: str, name: str) -> str:
    """The path of `name` in `folder`."""
    return f"{folder}/{name}" if folder else name


class FolderTree:
    """A folder on disk. Symbolic links are followed."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def listing(self, folder: str) -> Listing:
        folders: list[str] = []
        files: list[str] = []
        with os.scandir(self.root / folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                (folders if _is_folder(entry) else files).append(entry.name)
        return Listing(tuple(sorted(folders)), tuple(sorted(files)))

    def size(self, path: str) -> int:
        return os.stat(self.where(path)).st_size  # noqa: PTH116 - pathlib takes longer than the system call

    def read(self, path: str) -> bytes:
        return Path(self.where(path)).read_bytes()

    def where(self, path: str) -> str:
        return f"{self.root}/{path}" if path else str(self.root)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a symbolic link that leads back to itself
        return False


# How a member lies in its archive.
_AS_IS, _STORED, _DEFLATED = range(3)


class _Member(NamedTuple):
    path: str
    is_folder: bool
    kind: int
    offset: int
    """Of the data, or of a zip member's local header, in bytes."""
    packed: int
    """Bytes in the archive."""
    size: int
    """Bytes of the file."""


_FIELDS = 5


def _tidy(folder: str) -> str | None:
    """The path without "." and empty parts; None if a part is hidden."""
    parts = [part for part in folder.split("/") if part not in ("", ".")]
    return None if any(part.startswith(".") for part in parts) else "/".join(parts)


class ArchiveTree:
    """The members of one or more archives as one tree, without unpacking.

    ImageNet-C has four million members, so a member is a shared name and five integers (about 50 bytes).
    """

    def __init__(self, root: Path, archives: Iterable[Path]) -> None:
        self.root = root
        self._archives = tuple(archives)
        self._folders: dict[str, set[str]] = {"": set()}
        self._names: dict[str, list[str]] = {}
        self._places: dict[str, array[int]] = {}
        for number, archive in enumerate(self._archives):
            tidy = cache(_tidy)  # a folder's path comes with each of its files
            for path, is_folder, *place in _members(archive):
                before, _, name = (path, "", "") if is_folder else path.rpartition("/")
                folder = tidy(before)
                if folder is None or name.startswith("."):
                    continue
                if folder not in self._folders:
                    self._register(folder)
                if name:
                    self._names.setdefault(folder, []).append(intern(name))
                    self._places.setdefault(folder, array("Q")).extend((number, *place))

    def _register(self, folder: str) -> None:
        while folder not in self._folders:
            self._folders[folder] = set()
            parent, _, name = folder.rpartition("/")
            self._register(parent)
            self._folders[parent].add(name)

    def listing(self, folder: str) -> Listing:
        return Listing(tuple(sorted(self._folders[folder])), tuple(sorted(self._names.get(folder, ()))))

    def _place(self, path: str) -> tuple[Path, int, int, int, int]:
        folder, _, name = path.rpartition("/")
        row = self._names[folder].index(name) * _FIELDS
        number, kind, offset, packed, size = self._places[folder][row : row + _FIELDS]
        return self._archives[number], kind, offset, packed, size

    def size(self, path: str) -> int:
        return self._place(path)[-1]

    def read(self, path: str) -> bytes:
        archive, kind, offset, packed, size = self._place(path)
        # Opened for each read: no file position is shared between threads, and nothing has to be closed later.
        with archive.open("rb") as file:
            if kind != _AS_IS:
                # A zip member's data follow a local header whose two variable lengths only it knows (APPNOTE 4.3.7).
                file.seek(offset + 26)
                offset += 30 + sum(struct.unpack("<HH", file.read(4)))
            file.seek(offset)
            content = file.read(packed)
        if len(content) < packed:
            raise OSError("the archive ends inside this member")
        if kind != _DEFLATED:
            return content
        try:
            return zlib.decompressobj(-15).decompress(content, size + 1)[:size]
        except zlib.error as error:
            raise OSError(f"cannot be decompressed ({error})") from None

    def where(self, path: str) -> str:
        folder, _, name = path.rpartition("/")
        is_member = name in self._names.get(folder, ())
        return f"{self._place(path)[0] if is_member else self.root}: {path or 'top'}"


_COMPRESSED = {b"\x1f\x8b": ".gz", b"BZh": ".bz2", b"\xfd7zXZ\x00": ".xz", b"\x28\xb5\x2f\xfd": ".zst"}
_UNPACK = {".gz": "gunzip", ".bz2": "bunzip2", ".xz": "unxz", ".zst": "unzstd"}


def _members(archive: Path) -> Iterator[_Member]:
    try:
        with archive.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise unreadable_folder(str(archive), error) from None
    for magic, ending in _COMPRESSED.items():
        if start.startswith(magic):
            raise UserError(
                f"{archive} is compressed as a whole ({ending}): to reach one image, all before it must be unpacked.",
                f"Decompress it once with `{_UNPACK[ending]} {archive.name}`; the .tar is then read in place.",
            )
    if start.startswith(b"PK"):
        return _zip_members(archive)
    if _checksum_is_right(start):
        return _tar_members(archive)
    raise UserError(f"{archive} is neither a folder nor a tar or zip archive.", "Pass the data set itself.")


def _zip_members(archive: Path) -> Iterator[_Member]:
    try:
        with zipfile.ZipFile(archive) as file:
            entries = file.infolist()
    except zipfile.BadZipFile:
        raise _damaged(archive, "the table of contents at its end is missing") from None
    for entry in entries:
        kinds = {zipfile.ZIP_STORED: _STORED, zipfile.ZIP_DEFLATED: _DEFLATED}
        if entry.flag_bits & 1 or entry.compress_type not in kinds:
            raise UserError(
                f"{archive} holds {entry.filename}, which is encrypted or compressed in an unusual way.",
                "Zip archives are read with members stored or deflated; unpack this one.",
            )
        kind = kinds[entry.compress_type]
        yield _Member(entry.filename, entry.is_dir(), kind, entry.header_offset, entry.compress_size, entry.file_size)


def _tar_members(archive: Path) -> Iterator[_Member]:
    """The regular files and folders of a tar, from its headers alone.

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
                return
            if not _checksum_is_right(header):
                raise _damaged(archive, f"no member begins at byte {position:,}, where one should")
            kind = header[156:157]
            about_next = kind in b"LKxg"
            size = int(extended["size"]) if "size" in extended and not about_next else _number(header[124:136])
            data = position + 512
            position = data + -(-size // 512) * 512
            if data + size > end:
                raise _damaged(archive, f"its last member ends at byte {data + size:,}, the file at {end:,}")
            if about_next:
                file.seek(data)
                extended |= _extended(archive, kind, file.read(size))
                continue
            if kind in b"057\0":
                path = extended.get("path") or _tar_path(header)
                yield _Member(path, kind == b"5" or path.endswith("/"), _AS_IS, data, size, size)
            extended = {}


def _extended(archive: Path, kind: bytes, content: bytes) -> dict[str, str]:
    if kind == b"L":
        return {"path": _text(content)}
    fields = {}
    while kind == b"x" and content:  # "LENGTH KEY=VALUE\n", the length counting itself (POSIX pax)
        length, _, rest = content.partition(b" ")
        if not length.isdigit() or not len(length) < int(length) <= len(content):
            raise _damaged(archive, "an extended header is not what POSIX says")
        key, _, value = rest[: int(length) - len(length) - 2].partition(b"=")
        if key == b"path" or (key == b"size" and value.isdigit()):
            fields[key.decode()] = _text(value)
        content = content[int(length) :]
    return fields


def _tar_path(header: bytes) -> str:
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
    return join(prefix, _text(header[:100]))


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
    except ValueError:
        return False


def _damaged(archive: Path, why: str) -> UserError:
    return UserError(
        f"The archive {archive} is damaged or cut short: {why}.",
        "Fetch it again and compare its size or checksum with the publisher's.",
    )
