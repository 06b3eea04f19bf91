"""Bytes from a disk into values: whatever a parser raises on damaged or hostile bytes is a `UserError`. No torch."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ValidationError

from robustbench_twicing.errors import UserError

Value = TypeVar("Value", bound=BaseModel)

_SHOWN = 5
"""Mistakes of a file, named one by one."""


@contextmanager
def boundary(file: Path, hint: str) -> Iterator[None]:
    """Turn whatever a parser raises into a `UserError` that names the file.

    Parsers in C raise what they like on bytes that nobody foresaw, so nothing but a lack of memory is let through.
    """
    try:
        yield
    except (UserError, MemoryError):
        raise
    except RecursionError:
        raise UserError(f"{file} cannot be read: it is nested too deep.", hint) from None
    except Exception as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{file} cannot be read: {said[0][:200]}.", hint) from error


def json_object(content: bytes, file: Path, hint: str) -> dict[str, Any]:
    """The object that a JSON file holds. Raises `UserError`."""
    with boundary(file, hint):
        found = json.loads(content.decode("utf-8"))
        json.dumps(found, ensure_ascii=False).encode()  # refuses what is no text, such as "\\ud800"
    if not isinstance(found, dict):
        raise UserError(f"{file} cannot be read: it holds no JSON object.", hint)
    return found


def typed(kind: type[Value], content: Mapping[str, Any], file: Path, hint: str, **context: Any) -> Value:
    """`content` as a `kind`. Raises `UserError` naming the file and every key that is missing, unknown or wrong."""
    with boundary(file, hint):
        try:
            return kind.model_validate(content, context=context or None)
        except ValidationError as error:
            raise _altered(file, error, hint) from None


def _altered(file: Path, error: ValidationError, hint: str) -> UserError:
    found = []
    for issue in error.errors():
        key = ".".join(str(part) for part in issue["loc"])
        if issue["type"] == "missing":
            found.append(f"it has no {key!r}")
        elif issue["type"] == "extra_forbidden":
            found.append(f"it has a key {key!r} that this version does not know")
        else:
            found.append(f"{key}: {issue['msg'].removeprefix('Value error, ')}" if key else issue["msg"])
    more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return UserError(f"{file} was altered: {'; '.join(found[:_SHOWN])}{more}.", hint)


def parquet_table(content: bytes, file: Path, hint: str, encoded: Sequence[str] = ()) -> pa.Table:
    """The table of a parquet file. Raises `UserError`.

    Texts of the `encoded` columns stay numbers in a dictionary, which is far smaller where few differ.
    """
    with boundary(file, hint):
        return pq.ParquetFile(pa.BufferReader(content), read_dictionary=list(encoded)).read(use_threads=False)
