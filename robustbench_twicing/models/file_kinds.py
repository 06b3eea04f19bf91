"""What a file that is called a checkpoint is, by its first bytes. The ending of its name decides nothing."""

import codecs
import json
import string
import zipfile
from pathlib import Path
from typing import Literal

from robustbench_twicing.errors import UserError

Kind = Literal["safetensors", "torch"]

HOW_TO_SAVE = "Save the weights alone: torch.save(model.state_dict(), 'weights.pth'), or as .safetensors."

_HEAD = 512
_ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")
"""Of files that are offered where a folder was named."""
_LEGACY_TORCH = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""torch's number behind the pickle's protocol in files of torch before 1.6 (`torch.serialization.MAGIC_NUMBER`)."""

_UNPACK = "Unpack it first, and name the file inside."
_SIGNS = (
    (b"\x1f\x8b", "compressed by gzip", _UNPACK),
    (b"BZh", "compressed by bzip2", _UNPACK),
    (b"\xfd7zXZ", "compressed by xz", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"Rar!", "a RAR archive", _UNPACK),
    (b"\x93NUMPY", "a numpy array", HOW_TO_SAVE),
    (b"\x89HDF\r\n", "an HDF5 file, as Keras writes them", "Weights of torch are needed, under timm's names."),
    (b"GGUF", "a GGUF file, whose weights are quantised", "Name the weights that it was made from."),
    (b"\x89PNG", "a picture (PNG)", "Check the name."),
    (b"\xff\xd8\xff", "a picture (JPEG)", "Check the name."),
    (b"%PDF", "a PDF document", "Check the name."),
)


def kind_of(path: Path) -> Kind:
    """How the file at `path` is to be read. Raises `UserError` that says what it is, if it is no checkpoint."""
    try:
        if path.is_dir():
            raise _folder(path)
        if path.is_symlink() and not path.exists():
            raise UserError(f"No checkpoint at {path}: the link leads nowhere.", "Fetch the file that it stands for.")
        if not path.is_file():
            raise UserError(
                f"No checkpoint at {path}.", "Check the path after NAME=, or what `twicing-bench config show` says."
            )
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise unreadable(path, error) from error
    if size == 0:
        raise UserError(f"{path} is an empty file.", "Fetch or save the file again.")
    if _is_safetensors(head, size):
        return "safetensors"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip(path)
    if head[:1] == b"\x80" and head[2:].startswith(_LEGACY_TORCH):
        return "torch"
    raise _something_else(path, head, size)


def unreadable(path: Path, error: OSError) -> UserError:
    """What the file system refuses."""
    return UserError(f"{path} cannot be read: {error.strerror or error}.", "Check the file's permissions.")


def would_run_code(what: str) -> UserError:
    """A pickle that names something else than tensors and plain data."""
    return UserError(f"{what}, which could run code; it was not unpickled.", HOW_TO_SAVE)


def damaged(path: Path, reason: str) -> UserError:
    """A file that begins as a checkpoint does and does not go on so."""
    return UserError(f"{path} is truncated or no checkpoint: {reason}.", "Fetch or save the file again.")


def _folder(path: Path) -> UserError:
    inside = sorted(file.name for file in path.iterdir() if file.suffix in _ENDINGS)
    if not inside:
        return UserError(f"No checkpoint at {path}: it is a folder, and no checkpoint is in it.", "Name a file.")
    return UserError(f"No checkpoint at {path}: it is a folder.", f"Name a file in it: {', '.join(inside[:5])}.")


def _is_safetensors(head: bytes, size: int) -> bool:
    """Eight bytes that say how long the header is, and the header: JSON."""
    return len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8


def _zip(path: Path) -> Kind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise damaged(path, "its end is missing, where the list of its contents is") from error
    except Exception as error:  # zipfile raises much on headers that contradict each other
        raise damaged(path, "the list of its contents is wrong") from error
    inside = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in inside and any("/code/" in name for name in names):
        raise UserError(f"{path} is a TorchScript program, and programs are not run.", HOW_TO_SAVE)
    if "data.pkl" in inside:
        return "torch"
    if any("archive_format" in name or "/models/" in name for name in names):
        raise UserError(f"{path} is a program saved by torch.export, and programs are not run.", HOW_TO_SAVE)
    if names and all(name.endswith(".npy") for name in names):
        raise UserError(f"{path} is an archive of numpy arrays.", HOW_TO_SAVE)
    listed = ", ".join(ascii(name)[1:-1] for name in names[:3]) + (", ..." if len(names) > 3 else "")
    raise UserError(f"{path} is a zip archive that torch.save did not write; it holds {listed or 'nothing'}.", _UNPACK)


def _something_else(path: Path, head: bytes, size: int) -> UserError:
    for sign, what, hint in _SIGNS:
        if head.startswith(sign):
            return UserError(f"{path} is no checkpoint: it is {what}.", hint)
    if head[257:262] == b"ustar":
        return UserError(f"{path} is no checkpoint: it is a tar archive.", _UNPACK)
    if head[:1] == b"\x08" and (b"pytorch" in head or b"onnx" in head.lower()):
        hint = "Weights of torch are needed, under timm's names."
        return UserError(f"{path} is no checkpoint: it is an ONNX program.", hint)
    if not head.strip(b"\0"):
        return damaged(path, "it begins with zeros, as a file does whose download broke off")
    if head[:1] == b"\x80" and len(head) > 1 and head[1] <= 5:
        return would_run_code(f"{path} is a plain pickle")
    text = _text(head, size)
    if text is None:
        return damaged(path, f"it begins with the bytes {head[:8].hex(' ')}, and no format of weights does")
    return _written(path, text)


def _text(head: bytes, size: int) -> str | None:
    """The beginning of a text file; None for anything else."""
    encoding = "utf-16" if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8"
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(head, final=len(head) == size)
    except UnicodeDecodeError:
        return None
    text = text.removeprefix("\ufeff")
    return text.strip() if all(c.isprintable() or c in string.whitespace for c in text) else None


def _written(path: Path, text: str) -> UserError:
    low = text.lower()
    if low.startswith("version https://git-lfs"):
        hint = "Fetch what it stands for: git lfs pull, in the repository that it is from."
        return UserError(f"{path} is no checkpoint: it is a git-lfs pointer to one.", hint)
    if "annex/objects" in low[:300]:
        return UserError(f"{path} is no checkpoint: it is a git-annex pointer to one.", "Fetch it: git annex get.")
    again = (
        "What was downloaded is an answer of the server, not the file: open the address in a browser, and fetch again."
    )
    if "<html" in low or "<!doctype html" in low or low.startswith("<head"):
        return UserError(f"{path} is no checkpoint: it is an HTML page.", again)
    if low.startswith("<"):
        return UserError(f"{path} is no checkpoint: it is an XML document.", again)
    if low.startswith("{") and '"weight_map"' in low:
        hint = "Join the pieces that it names into one file, or name weights that lie in one."
        return UserError(f"{path} is no checkpoint: it is the list of a checkpoint's pieces.", hint)
    if low.startswith(("{", "[")):
        return UserError(f"{path} is no checkpoint: it is a text file (JSON).", again)
    first = json.dumps(text.splitlines()[0][:40], ensure_ascii=True) if text else '""'
    return UserError(f"{path} is no checkpoint: it is a text file that begins with {first}.", again)
