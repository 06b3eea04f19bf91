"""The only way out for text: control characters become visible, and what an encoding lacks becomes a look-alike."""

import codecs
import os
import sys
import unicodedata

from rich.console import Console

from robustbench_twicing.report.marks import BARS, Tone

STYLES: dict[Tone, str] = {
    "plain": "",
    "strong": "bold",
    "note": "dim",
    "good": "green",
    "warning": "yellow",
    "bad": "bold red",
}
"""Tone -> style of rich."""

LEAST_WIDTH = 80
"""Columns of a terminal that says it has none."""
WITHOUT_TERMINAL = 150
"""Columns where there is no terminal: no table needs to be folded much in a log."""

_ERRORS = "twicing-bench.look-alike"

_INVISIBLE = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode's categories of what moves the cursor, changes the direction of writing, breaks lines or shows nothing."""

_LOOK_ALIKES = {
    "−": "-",
    "–": "-",
    "—": "-",
    "·": "*",
    "×": "x",
    "±": "+-",
    "∞": "inf",
    "≤": "<=",
    "≥": ">=",
    "→": "->",
    "…": "...",
    "‘": "'",
    "’": "'",
    "“": '"',
    "”": '"',
    **{bar: str(height) for height, bar in enumerate(BARS, start=1)},
    **dict.fromkeys("─━", "-"),
    **dict.fromkeys("│┃", "|"),
    **dict.fromkeys("┏┓┗┛┡┩┳┻╇┼├┤└┘┌┐┬┴", "+"),
}


def visible(text: str, encoding: str = "utf-8") -> str:
    """The text on one line, as it can be shown and as `encoding` can write it.

    Control characters, escape sequences, marks that turn the direction of writing and halves of surrogate pairs come
    out as Python would escape them: a name from a file can neither clear a screen nor hide a part of itself.
    """
    if not text.isprintable():
        text = "".join(_escaped(char) if unicodedata.category(char) in _INVISIBLE else char for char in text)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.encode(encoding, _ERRORS).decode(encoding)
    return text


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def _look_alike(error: UnicodeError) -> tuple[str, int]:
    """ASCII for what cannot be encoded: look-alikes, letters without their marks, else the escaped code."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_plainer, error.object[error.start : error.end])), error.end


def _plainer(char: str) -> str:
    if char in _LOOK_ALIKES:
        return _LOOK_ALIKES[char]
    bare = unicodedata.normalize("NFKD", char).encode("ascii", "ignore").decode()
    return bare or _escaped(char)


codecs.register_error(_ERRORS, _look_alike)


def prepare_streams() -> None:
    """Let nothing that is printed, by whomever, end in an encoding error, and forget a width of 0."""
    if not os.environ.get("COLUMNS", "1").strip("0"):
        del os.environ["COLUMNS"]
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors=_ERRORS)


def console(*, stderr: bool = False) -> Console:
    """Standard output or standard error: as wide as the terminal, `WITHOUT_TERMINAL` columns elsewhere. No markup."""
    made = Console(stderr=stderr, markup=False, highlight=False, emoji=False)
    return Console(stderr=stderr, markup=False, highlight=False, emoji=False, width=_width(made))


def _width(made: Console) -> int:
    """COLUMNS, else the terminal's; at least something where the answer is nonsense."""
    asked = os.environ.get("COLUMNS", "")
    if asked.isdecimal() and int(asked):
        return int(asked)
    return (made.width or LEAST_WIDTH) if made.is_terminal else WITHOUT_TERMINAL


def say(text: str, tone: Tone = "plain", *, stderr: bool = False) -> None:
    """Print a message as it is; its line breaks are its own, nothing is wrapped."""
    to = console(stderr=stderr)
    for line in text.split("\n"):
        to.print(visible(line, to.encoding), style=STYLES[tone], soft_wrap=True)
