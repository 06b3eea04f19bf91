"""The user's mistakes, and what the process tells the shell."""

import difflib
from collections.abc import Iterable

EXIT_OK = 0
EXIT_FAILED_RECORDS = 1
"""The run went to its end, but some samples could not be evaluated."""
EXIT_USAGE = 2
EXIT_REGRESSED = 3
EXIT_INCONCLUSIVE = 4
EXIT_INTERRUPTED = 130
"""128 + SIGINT, as a shell reports it."""


class UserError(Exception):
    """Something the user can put right. Shown without a traceback, with exit code 2.

    `message` says what was wrong and what was found; `hint` says what is allowed and what to do next.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UserError:
    """A `UserError` for a name that is not in a table: nearest names first, then everything there is."""
    names = sorted(known)
    near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    return UserError(f"Unknown {kind} {name!r}.", f"{hint}Available: {', '.join(names) or 'none'}.")
