"""The user's mistakes, what the process tells the shell, and file names as text."""

import re
import sys
from collections.abc import Iterable

EXIT_OK = 0
EXIT_FAILED_RECORDS = 1
"""The run went to its end, but some samples, or some shards of them, could not be evaluated."""
EXIT_USAGE = 2
EXIT_REGRESSED = 3
EXIT_INCONCLUSIVE = 4
EXIT_DISPROVED = 5
"""Numbers do not follow from the records beside them, or records are not what comes out again."""
EXIT_INTERNAL = 70
"""A fault of the tool's own; EX_SOFTWARE of sysexits.h."""
EXIT_INTERRUPTED = 130
"""128 + SIGINT, as a shell reports it."""


class UserError(Exception):
    """Something the user can put right. Shown without a traceback, with exit code 2.

    `message` says what was wrong and what was found; `hint` says what is allowed and what to do next.
    """

    exit_code = EXIT_USAGE

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(shown(message))
        self.message = shown(message)
        self.hint = shown(hint)

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class LeftUndoneError(UserError):
    """A run went to its end, but for some shards that could not be computed."""

    exit_code = EXIT_FAILED_RECORDS


def no_working_folder() -> UserError:
    """Somebody removed the folder that the program was started in."""
    return UserError("The working folder is gone.", "Change into a folder that is there.")


def internal_error(error: Exception) -> tuple[str, str]:
    """What is said of a fault of ours: which, and where its traceback lies, in a file that this writes."""
    import shlex
    import traceback
    from tempfile import NamedTemporaryFile

    trace = "".join(traceback.format_exception(error))
    said = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in str(error))
    try:
        with NamedTemporaryFile("w", prefix="twicing-bench-", suffix=".txt", encoding="utf-8", delete=False) as file:
            file.write(f"{shlex.join(map(shown, sys.argv))}\n{trace}")
        where = f"The traceback is in {file.name}: please report it."
    except OSError:
        where = trace
    return f"Internal error: {type(error).__name__}: {said}", where


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UserError:
    """A `UserError` for a name that is not in a table: nearest names first, then everything there is."""
    import difflib  # not for help

    names = sorted(known)
    near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    return UserError(f"Unknown {kind} {name!r}.", f"{hint}Available: {', '.join(names) or 'none'}.")


_SURROGATE = re.compile("[\ud800-\udfff]")


def shown(path: str) -> str:
    r"""`path` as a sample id, a record and a message hold it: bytes that are not UTF-8 become `\xe9` and the like.

    Python keeps such bytes of a file name as lone surrogates, which can be neither hashed, stored nor printed. Every
    other path is returned as it is; two files whose names become the same text are refused where samples are listed.
    """
    return path if path.isascii() else _SURROGATE.sub(_escaped, path)


def _escaped(found: "re.Match[str]") -> str:
    code = ord(found[0])
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"
