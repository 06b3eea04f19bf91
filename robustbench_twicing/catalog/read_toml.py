"""TOML files into frozen values, with every mistake named at once."""

import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from robustbench_twicing.errors import UserError

Value = TypeVar("Value", bound=BaseModel)


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises `UserError` naming file, line and column if it is not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"No file {path}.", "Check the path.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}.", "It has to be a readable UTF-8 text file.") from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is not valid TOML: {error}.", "See https://toml.io for the form.") from None


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
