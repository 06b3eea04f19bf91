"""The samples that somebody picks by their ids."""

from collections import Counter
from pathlib import Path

from robustbench_twicing.errors import UserError

_FORM = (
    "It is text, the id of one sample a line, such as n01440764/ILSVRC2012_val_00000293 (column sample_id of records)."
)


def picked_ids(said: str | tuple[str, ...]) -> tuple[str, ...]:
    """The ids that `said` lists, sorted: themselves, or the lines of a text file. Empty if nothing was said.

    Raises `UserError` for a file that cannot be read or lists nothing, and for an id that is listed twice.
    """
    if not said:
        return ()
    listed, where = (said, "The list of ids") if not isinstance(said, str) else (_lines(said), said)
    if not listed:
        raise UserError(f"{where} lists no sample.", _FORM)
    twice = [name for name, times in Counter(listed).items() if times > 1]
    if twice:
        raise UserError(f"{where} lists {len(twice):,} sample(s) twice, such as {twice[0]}.", "List each once.")
    return tuple(sorted(listed))


def _lines(file: str) -> tuple[str, ...]:
    try:
        text = Path(file).expanduser().read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"The list of ids {file} cannot be read: it is not UTF-8.", _FORM) from None
    except (OSError, ValueError) as error:  # also of a name that no file can have
        what = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"The list of ids {file} cannot be read: {what}.", _FORM) from None
    return tuple(line.strip() for line in text.splitlines() if line.strip())
