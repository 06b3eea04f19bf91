"""TOML files into frozen values, with every mistake named at once."""

import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from robustbench_twicing.errors import UserError

Value = TypeVar("Value", bound=BaseModel)

_DEEPEST = 100
"""Levels of arrays, tables and dotted keys within one another; what ships here has four."""
_PIECES = re.compile(
    r'''
    """(?:[^"\\]++|\\.|"(?!""))*+(?:"{3,5}|\Z)  # texts and comments, in which nothing nests; unfinished ones too
    | '{3}(?:[^']++|'(?!''))*+(?:'{3,5}|\Z)
    | "(?:[^"\\\n]++|\\.)*+"?
    | '[^'\n]*+'?
    | \#[^\n]*+
    | [][{}.,\n]
    ''',
    re.VERBOSE | re.DOTALL,
)


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises `UserError` naming file, line and column if it is not TOML."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"No file {path}.", "Check the path.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}.", "It has to be a readable UTF-8 text file.") from None
    return parse_toml(text, str(path))


def parse_toml(text: str, origin: str) -> dict[str, Any]:
    """The tables of a TOML text, the only place that parses one. Raises `UserError` naming `origin`, line and column.

    Depth is looked at first: the parser recurses, and its time grows with the square of a dotted key's parts.
    """
    if _depth(text) > _DEEPEST:
        hint = f"At most {_DEEPEST} arrays, tables and parts of a dotted key may lie within one another."
        raise UserError(f"{origin} is nested too deep.", hint)
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a number may be longer than Python reads
        raise UserError(f"{origin} is not valid TOML: {error}.", "See https://toml.io for the form.") from None


def _depth(text: str) -> int:
    """How deep brackets and dotted keys go, a header and the keys below it apart. Never less than it is."""
    around, dots, deepest = list[int](), 0, 0  # dots since each open bracket, and since the last of them
    level = 0
    for piece in _PIECES.findall(text):
        if piece == ".":
            dots += 1
        elif piece in ("[", "{"):
            around.append(dots)
            level += dots + 1
            dots = 0
        elif piece in ("]", "}"):
            dots = around.pop() if around else 0
            level -= dots + 1
        else:
            dots = 0 if piece in (",", "\n") else dots
        deepest = max(deepest, level + dots)
    return deepest


def validated(kind: type[Value], content: dict[str, Any], origin: str, hint: str = "") -> Value:
    """`content` as a `kind`. Raises one `UserError` that lists every wrong key, type and value."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        lines = []
        for issue in error.errors():
            where = "".join(f"{part}." for part in issue["loc"])[:-1]
            got = f" (got {issue['input']!r})" if issue["type"] not in ("missing", "union_tag_not_found") else ""
            said = issue["msg"].removeprefix("Value error, ")  # pydantic's name for what our own checks say
            lines.append(f"  {where}{': ' if where else ''}{said}{got if len(got) < 120 else ''}")
        raise UserError(f"{origin} has {len(lines)} mistake(s):\n" + "\n".join(lines), hint) from None
