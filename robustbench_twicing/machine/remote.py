"""Files that lie elsewhere (s3://, gs://, hf://, http(s):// …), read by ranges, with a cache on this machine.

An address is a `RemotePath`, so that whoever opens, measures or looks for a file need not know where it lies. fsspec
(extra `[remote]`) reads and writes; it takes credentials from where the provider's own tools keep them, never from an
address. What was read lies in the cache under the hash of address, version and range, until that grows too large; on a
machine whose cache cannot be written it is read anew each time.
"""

import errno
import hashlib
import io
import os
import re
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path, PosixPath
from types import SimpleNamespace
from typing import Any

from platformdirs import user_cache_path

from robustbench_twicing.errors import UserError

CACHE = user_cache_path("twicing-bench", appauthor=False) / "remote"
MOST_BYTES = 20 * 2**30
"""Of the cache; beyond it, what was used longest ago goes."""
_WORTH_KEEPING = 4096
"""Bytes: smaller ranges are headers, of which the list of members is kept as a whole."""
_TRIES, _PAUSE = 4, 0.5
"""Of a range, and seconds before the second try; then twice as long each time."""
_PIECE = 2**26
"""Bytes that are fetched at a time of a file that is wanted whole."""
_ADDRESS = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]+):/{1,2}(?P<rest>[^/].*)")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
"""What says that the cache cannot be written, not that the file cannot be read."""
_VERSION = ("ETag", "etag", "md5Hash", "blob_id", "sha256", "LastModified", "mtime", "created")


def is_remote(text: str | Path) -> bool:
    """Whether it is the address of a file elsewhere, also with the slash that `Path` takes away."""
    return isinstance(text, RemotePath) or bool(_ADDRESS.fullmatch(str(text)))


def place_of_text(text: str | Path) -> Path:
    """The path that a text names, `~` being the user's home. Raises `UserError` for an address with a secret in it."""
    return RemotePath(str(text)) if is_remote(text) else Path(text).expanduser()


class RemotePath(PosixPath):
    """An address. Of what a path can do: `open`, `stat`, `exists`, `is_file`, `read_bytes`, `write_bytes`, `unlink`."""

    def __new__(cls, *parts: str) -> "RemotePath":  # noqa: PYI034 - beartype cannot check Self here
        text = parts[0] if len(parts) == 1 else "/".join([parts[0].rstrip("/"), *parts[1:]])
        found = _ADDRESS.fullmatch(text)
        if not found:
            raise ValueError(f"{text} is no address")
        if "@" in found["rest"].partition("/")[0] or "?" in text:
            raise UserError(
                f"An address of {found['scheme']}:// has a password or a signature in it, and a run keeps its command.",
                "Write it without: credentials come from where the provider's own tools keep them (docs/scale.md).",
            )
        made: RemotePath = super().__new__(cls, f"{found['scheme']}:/{found['rest']}")
        return made

    def __str__(self) -> str:
        scheme, _, rest = super().__str__().partition(":/")
        return f"{scheme}://{rest}"

    def __fspath__(self) -> str:
        return str(self)

    def absolute(self) -> "RemotePath":
        return self

    def expanduser(self) -> "RemotePath":
        return self

    def resolve(self, strict: bool = False) -> "RemotePath":
        return self

    def open(self, mode: str = "rb", buffering: int = -1, *_: Any) -> Any:
        """As of a file that is read as bytes; each read is one range. Raises `OSError`."""
        if mode != "rb":
            raise PermissionError(13, "Files elsewhere are only read", str(self))
        return _RemoteFile(self)

    def stat(self, **_: Any) -> Any:
        """With `st_size` alone. Raises `OSError`."""
        size, _version, folder = _known(self)
        if folder:
            raise IsADirectoryError(21, "Is a folder", str(self))
        return SimpleNamespace(st_size=size)

    def exists(self, **_: Any) -> bool:
        """Whether something is there, a folder too. Raises `UserError` if nobody can tell."""
        try:
            _known(self)
        except FileNotFoundError:
            return False
        return True

    def is_file(self, **_: Any) -> bool:
        return self.exists() and not _known(self)[2]

    def is_dir(self, **_: Any) -> bool:
        return self.exists() and _known(self)[2]

    def is_symlink(self) -> bool:
        return False

    def local_copy(self) -> Path:
        """The whole file, fetched once. Raises `OSError`, and `UserError` where the cache has no room for it."""
        size = self.stat().st_size

        def fetch(file: Any) -> None:
            for begin in range(0, size, _PIECE):
                file.write(_range(self, begin, min(begin + _PIECE, size)))

        try:
            return _kept(self, "whole", fetch, self.suffix)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            raise UserError(
                f"{self} ({size:,} bytes) is fetched whole, and {CACHE} cannot hold it: {error.strerror}.",
                "Free some space there, or set XDG_CACHE_HOME to a folder that has it.",
            ) from None

    def derived(self, name: str, make: Callable[[], bytes]) -> bytes:
        """What `make` finds out about this file, kept beside what was read of it."""
        return _through_the_cache(self, name, make)

    def read_bytes(self) -> bytes:
        """All of it, as it is now: not out of the cache. Raises `OSError`."""
        _answers.pop(str(self), None)
        return _range(self, 0, self.stat().st_size)

    def write_bytes(self, data: Any) -> int:
        """Replace the file; who reads sees the old one or the new one. Raises `OSError`, and `UserError`."""
        system, name = _system(self)
        _often(lambda: system.pipe_file(name, bytes(data)), f"{self} cannot be written")
        _answers.pop(str(self), None)
        return len(data)

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the file. Raises `OSError`."""
        system, name = _system(self)
        with suppress(FileNotFoundError) if missing_ok else nullcontext():
            _often(lambda: system.rm_file(name), f"{self} cannot be removed")
        _answers.pop(str(self), None)

    def files(self) -> dict[str, int]:
        """Names and bytes of all files under an address, relative to it; empty if there is none. Raises `OSError`."""
        system, name = _system(self)
        system.invalidate_cache()
        root = name.rstrip("/") + "/"
        found = _often(lambda: system.find(name, detail=True), f"{self} cannot be listed")
        return {key[len(root) :]: int(info.get("size") or 0) for key, info in found.items() if key.startswith(root)}


class _RemoteFile(io.RawIOBase):
    """A file elsewhere, open to be read."""

    def __init__(self, path: RemotePath) -> None:
        self._path, self._size, self._at = path, int(path.stat().st_size), 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        stop = self._size if size is None or size < 0 else min(self._at + size, self._size)
        if self._at >= stop:
            return b""
        content = ranged(self._path, self._at, stop)
        self._at += len(content)
        return content

    def readall(self) -> bytes:
        return self.read()


def ranged(path: RemotePath, begin: int, end: int) -> bytes:
    """These bytes of a file, out of the cache if they are there. Raises `OSError`."""
    if end - begin <= _WORTH_KEEPING:
        return _range(path, begin, end)
    return _through_the_cache(path, f"{begin}-{end}", lambda: _range(path, begin, end))


def _range(path: RemotePath, begin: int, end: int) -> bytes:
    system, name = _system(path)
    content: bytes = _often(lambda: system.cat_file(name, start=begin, end=end), f"{path} cannot be read")
    if len(content) != end - begin:
        raise OSError(f"{len(content)} bytes came, and {end - begin} were asked for")
    return content


def _often(ask: Callable[[], Any], fails: str) -> Any:
    """What a provider answers, asked again where the network does not hold. Raises `OSError`, and `UserError`."""
    for tries in range(_TRIES):
        try:
            return ask()
        except (FileNotFoundError, PermissionError):
            raise
        except NotImplementedError:
            raise UserError(f"{fails}: addresses of this kind are only read.", "Name one such as s3://…") from None
        except Exception as error:  # noqa: BLE001  # what a provider's library raises when the network does not hold
            if tries == _TRIES - 1:
                raise OSError(f"{fails}: {type(error).__name__}: {error}") from None
            time.sleep(_PAUSE * 2**tries)
    raise AssertionError("unreachable")


_answers: dict[str, tuple[int, str, bool]] = {}


def _known(path: RemotePath) -> tuple[int, str, bool]:
    """Size, version and whether it is a folder; asked for once. Raises `FileNotFoundError`, and `UserError`."""
    if str(path) not in _answers:
        try:
            system, name = _system(path)
            info = system.info(name)
        except (FileNotFoundError, UserError):
            raise
        except Exception as error:  # noqa: BLE001  # of the provider's library: no credentials, no network
            raise UserError(
                f"{path} cannot be read: {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}",
                "Check the address, the network, and that the provider's own tools can read it with your credentials.",
            ) from None
        version = next((str(info[key]) for key in _VERSION if info.get(key)), "")
        _answers[str(path)] = int(info.get("size") or 0), version, info.get("type") == "directory"
    return _answers[str(path)]


def _system(path: RemotePath) -> tuple[Any, str]:
    try:
        import fsspec
    except ImportError:
        raise UserError(f"{path} needs fsspec.", "pip install 'twicing-bench[remote]'") from None
    try:
        found: tuple[Any, str] = fsspec.core.url_to_fs(str(path))
    except (ImportError, ValueError) as error:
        hint = "pip install 'twicing-bench[remote]' brings s3fs, for s3://; other addresses need their own library."
        raise UserError(f"{path} cannot be read: {error}.", hint) from None
    return found


# --- the cache -------------------------------------------------------------------------------------------------------


def _through_the_cache(path: RemotePath, what: str, make: Callable[[], bytes]) -> bytes:
    """What the cache has under this name, else what `make` gives, which is put there if there is room."""
    made = list[bytes]()

    def fill(file: Any) -> None:
        made.append(make())
        file.write(made[0])

    try:
        return _kept(path, what, fill).read_bytes()
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        return made[0] if made else make()


def _kept(path: RemotePath, what: str, fill: Callable[[Any], Any], suffix: str = "") -> Path:
    """The file of the cache that holds a part of a file elsewhere; `fill` writes it if it is not there."""
    size, version, _ = _known(path)
    name = hashlib.sha256(f"{path}\0{size}\0{version}\0{what}".encode()).hexdigest()
    file = CACHE / name[:2] / f"{name}{suffix}"
    with suppress(OSError):
        os.utime(file)  # used now
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{name}.{os.getpid()}.{time.monotonic_ns()}.part")
    try:
        with part.open("wb") as stream:
            fill(stream)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    _bound(file.stat().st_size)
    return file


_written = [0]


def _bound(more: int) -> None:
    """Remove what was used longest ago, now and then: after each twentieth of what the cache may hold."""
    _written[0] += more
    if _written[0] < MOST_BYTES / 20:
        return
    _written[0] = 0
    held = []
    for file in CACHE.glob("*/*"):
        with suppress(OSError):
            status = file.stat()
            held.append((status.st_mtime, status.st_size, file))
    total = sum(size for _, size, _ in held)
    for _, size, file in sorted(held):
        if total <= MOST_BYTES * 0.9:
            return
        file.unlink(missing_ok=True)
        total -= size
