"""A tree of files, whether it lies in a folder or inside tar and zip archives, which are read in place.

Paths inside a tree are written with "/" and without a leading one; "" is its top.
"""

import os
import posixpath
import stat
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from sys import intern
from typing import NamedTuple, Protocol, runtime_checkable

from robustbench_twicing.data.archive_members import (
    COMPRESSED,
    PLACE_FIELDS,
    Link,
    Member,
    Odd,
    members,
    raw_place,
    read_member,
)
from robustbench_twicing.errors import UserError, shown
from robustbench_twicing.machine.remote import RemotePath


class Listing(NamedTuple):
    """What one folder of a tree holds, by name, in alphabetical order. Hidden entries are left out."""

    folders: tuple[str, ...]
    files: tuple[str, ...]
    """Everything that is no folder, links that lead nowhere included."""


@runtime_checkable
class Tree(Protocol):
    """Files by path. Safe to read from several threads."""

    root: Path
    left_out: tuple[str, ...]
    """What an archive holds that is neither file nor folder, nor a link to a file, with the reason."""

    def listing(self, folder: str) -> Listing:
        """The contents of a folder. Raises `OSError`."""
        ...

    def size(self, path: str) -> int:
        """Bytes of the file. Raises `OSError`."""
        ...

    def read(self, path: str) -> bytes:
        """The file's contents. Raises `OSError`."""
        ...

    def raw(self, path: str) -> tuple[Path, int, int] | None:
        """(file on disk, offset in it, bytes) where the file lies as it is; None if it is packed. Raises `OSError`."""
        ...

    def where(self, path: str) -> str:
        """The file or folder as a message names it: text that can be written anywhere."""
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
        if isinstance(root, RemotePath):
            raise UserError(
                f"{root} is a folder, and elsewhere only archives are read.",
                "Name a .tar or .zip of it, or copy the folder to this machine.",
            )
        tree = FolderTree(root)
        top = tree.listing("")
    except OSError as error:
        raise unreadable_folder(str(root), error) from None
    archives = [root / name for name in top.files if name.lower().endswith((".tar", ".zip", *COMPRESSED.values()))]
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

    left_out: tuple[str, ...] = ()

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
        return os.stat(self._path(path)).st_size  # noqa: PTH116 - pathlib takes longer than the system call

    def read(self, path: str) -> bytes:
        status = os.stat(self._path(path))  # noqa: PTH116 - as above
        if not stat.S_ISREG(status.st_mode):  # reading from a pipe or a device might never end
            raise OSError("no regular file")
        return Path(self._path(path)).read_bytes()

    def raw(self, path: str) -> tuple[Path, int, int]:
        return Path(self._path(path)), 0, self.size(path)

    def where(self, path: str) -> str:
        return shown(self._path(path))

    def _path(self, path: str) -> str:
        return f"{self.root}/{path}" if path else str(self.root)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a symbolic link that leads back to itself
        return False


_FIELDS = 1 + PLACE_FIELDS
"""Numbers kept of a file: which archive, and its place in it."""

_SIZE = 1 + Member._fields[2:].index("size")

_LONGEST_CHAIN = 40
"""Links that may lead to one another, as on Linux."""

_DEEPEST = 64
"""Folders within each other that a path may have; no data set has ten."""


def _tidy(folder: str) -> str | None:
    """The path without "." and empty parts; None if a part is hidden, or if there are too many."""
    parts = [part for part in folder.split("/") if part not in ("", ".")]
    return None if len(parts) > _DEEPEST or any(part.startswith(".") for part in parts) else "/".join(parts)


class ArchiveTree:
    """The members of one or more archives as one tree, without unpacking. Links that lead to a file are that file.

    ImageNet-C has four million members, so a member is a shared name and six integers (about 60 bytes).
    """

    def __init__(self, root: Path, archives: Iterable[Path]) -> None:
        self.root = root
        self.archives = tuple(archives)
        self._folders: dict[str, set[str]] = {"": set()}
        self._names: dict[str, list[str]] = {}
        self._places: dict[str, array[int]] = {}
        left_out: list[str] = []
        for number, archive in enumerate(self.archives):
            left_out += self._add(number, archive)
        self.left_out = tuple(map(shown, left_out))
        for folder in self._names:
            self._sort(folder)

    def _add(self, number: int, archive: Path) -> Iterator[str]:
        """Take in the members of an archive; yields what is left out, and why."""
        links: dict[str, Link] = {}
        tidy = cache(_tidy)  # a folder's path comes with each of its files
        for member in members(archive):
            if isinstance(member, Odd):
                yield f"{member.path} ({member.what})"
                continue
            if isinstance(member, Link):
                path = _tidy(member.path)
                links |= {path: member} if path else {}
                continue
            path, is_folder, *place = member
            before, _, name = (path, "", "") if is_folder else path.rpartition("/")
            folder = tidy(before)
            if folder is None or name.startswith("."):
                if path.count("/") > _DEEPEST:
                    yield f"{path[:80]}… (in more than {_DEEPEST} folders)"
                continue
            self._register(folder)
            if name:
                self._put(folder, name, number, *place)
        yield from self._add_links(links)

    def _add_links(self, links: Mapping[str, Link]) -> Iterator[str]:
        """Give each link the place of the file that it leads to; yields those that lead to none."""

        @cache
        def rows(folder: str) -> dict[str, int]:
            return {name: row for row, name in enumerate(self._names.get(folder, ()))}

        found: dict[str, array[int] | None] = {}
        for path in links:
            folder, _, name = (_end_of(path, links) or "").rpartition("/")
            row = rows(folder).get(name)
            found[path] = None if row is None else self._places[folder][row * _FIELDS : (row + 1) * _FIELDS]
        for path, place in found.items():
            if place is None:
                kind = "hard" if links[path].hard else "symbolic"
                yield f"{path} (a {kind} link to {links[path].target}, which is no file in the archive)"
                continue
            folder, _, name = path.rpartition("/")
            self._register(folder)
            self._put(folder, name, *place)

    def _put(self, folder: str, name: str, *place: int) -> None:
        self._names.setdefault(folder, []).append(intern(name))
        self._places.setdefault(folder, array("Q")).extend(place)

    def _register(self, folder: str) -> None:
        if folder not in self._folders:
            self._folders[folder] = set()
            parent, _, name = folder.rpartition("/")
            self._register(parent)  # at most as deep as `_DEEPEST`
            self._folders[parent].add(name)

    def _sort(self, folder: str) -> None:
        """Bring a folder's files into order, so that one is found by halving."""
        names, places = self._names[folder], self._places[folder]
        if names == sorted(names):
            return
        order = sorted(range(len(names)), key=names.__getitem__)
        self._names[folder] = [names[row] for row in order]
        self._places[folder] = array("Q")
        for row in order:
            self._places[folder].extend(places[row * _FIELDS : (row + 1) * _FIELDS])

    def listing(self, folder: str) -> Listing:
        if folder not in self._folders:
            raise FileNotFoundError(2, "no such folder in the archive", folder)
        return Listing(tuple(sorted(self._folders[folder])), tuple(self._names.get(folder, ())))

    def _place(self, path: str) -> "array[int] | None":
        folder, _, name = path.rpartition("/")
        names = self._names.get(folder, [])
        row = bisect_left(names, name)
        if row == len(names) or names[row] != name:
            return None
        return self._places[folder][row * _FIELDS : (row + 1) * _FIELDS]

    def _place_of_file(self, path: str) -> "array[int]":
        place = self._place(path)
        if place is None:
            raise FileNotFoundError(2, "no such file in the archive", path)
        return place

    def size(self, path: str) -> int:
        return self._place_of_file(path)[_SIZE]

    def read(self, path: str) -> bytes:
        number, *place = self._place_of_file(path)
        return read_member(self.archives[number], *place)

    def raw(self, path: str) -> tuple[Path, int, int] | None:
        number, *place = self._place_of_file(path)
        return raw_place(self.archives[number], *place)

    def where(self, path: str) -> str:
        place = self._place(path)
        return shown(f"{self.archives[place[0]] if place else self.root}: {path or 'top'}")


def _end_of(path: str, links: Mapping[str, Link]) -> str | None:
    """Where a chain of links ends; None if it is a circle or leads out of the archive."""
    for _ in range(_LONGEST_CHAIN):
        link = links.get(path)
        if link is None:
            return path
        target = link.target.lstrip("/") if link.hard else posixpath.join(posixpath.dirname(path), link.target)
        path = posixpath.normpath(target)
        if path.startswith(("/", "..")):
            return None
    return None
