"""States of a training in files: each whole under its name or not there, the last two kept."""

import errno
import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from robustbench_twicing.errors import UserError

_KEPT = 2
_NAME = re.compile(r"checkpoint-(\d{9})\.pt")


def save_state(folder: Path, update: int, state: Mapping[str, Any]) -> Path:
    """Write the state after `update` updates, and remove all but the last two.

    Raises `UserError` if it cannot be written; the earlier ones are then as they were.
    """
    path = folder / f"checkpoint-{update:09d}.pt"
    unfinished = folder / f".{path.name}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as file:
            torch.save(dict(state), file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except (OSError, RuntimeError) as error:  # torch's writer has errors of its own
        with suppress(OSError):
            unfinished.unlink()
        raise _not_written(folder, path, error) from error
    for old in _found(folder)[_KEPT:]:
        old.unlink(missing_ok=True)
    return path


def _not_written(folder: Path, path: Path, error: BaseException) -> UserError:
    cause = error if isinstance(error, OSError) else error.__context__
    reason = os.strerror(cause.errno) if isinstance(cause, OSError) and cause.errno else str(error).partition("\n")[0]
    left = _found(folder)
    full = isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    hint = f"The previous checkpoint {left[0]} is whole: " if left else ""
    hint += "make room, and give the command again." if full else "give the command again."
    return UserError(f"The checkpoint {path} could not be written: {reason}.", hint)


def newest_state(folder: Path) -> tuple[Path, dict[str, Any], list[Path]] | None:
    """The newest checkpoint that can be read, and newer ones that cannot; None if there is none at all.

    Raises `UserError` if there are some, and none can be read.
    """
    damaged: list[Path] = []
    for path in _found(folder):
        try:
            # Tensors and plain data only: no file may run code.
            return path, torch.load(path, map_location="cpu", weights_only=True), damaged
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 - damaged in whatever way
            damaged.append(path)
    if damaged:
        listed = ", ".join(map(str, damaged))
        raise UserError(f"No checkpoint in {folder} can be read ({listed}).", "Remove the folder to begin anew.")
    return None


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest file, whether it can be read or not."""
    return next(iter(_found(folder)), None)


def refuse_another(path: Path, state: Mapping[str, Any], identity: Mapping[str, str]) -> None:
    """Raise `UserError` that names each field in which a checkpoint is of another training."""
    try:
        theirs = json.loads(state["job"])
    except (KeyError, ValueError, TypeError):
        raise UserError(f"{path} is no checkpoint of `train`.", "Name another place with --out.") from None
    differ = [
        f"  {key}: {theirs.get(key, 'not said')} there, {identity.get(key, 'not said')} here"
        for key in dict.fromkeys((*identity, *theirs))
        if theirs.get(key) != identity.get(key)
    ]
    if differ:
        raise UserError(
            f"{path} is of another training:\n" + "\n".join(differ),
            f"Name another place with --out, or remove {path.parent} to begin anew.",
        )


def remove_states(folder: Path) -> None:
    """All checkpoints, and the folder if nothing else is in it."""
    for path in (*_found(folder), *folder.glob(".checkpoint-*.part")):
        path.unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


def _found(folder: Path) -> list[Path]:
    """The newest first."""
    with suppress(OSError):
        return sorted((path for path in folder.iterdir() if _NAME.fullmatch(path.name)), reverse=True)
    return []
