"""A page for machines: its facts, or the rows of its tables. ASCII, so that it passes through any terminal."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from robustbench_twicing.report.numbers import is_missing
from robustbench_twicing.report.page import Page


def write(page: Page) -> bytes:
    """JSON. Missing numbers are null, fractions stay fractions."""
    facts = page.facts
    if facts is None:
        facts = {table.key: table.rows for table in page.tables}
    return (json.dumps(plain(facts), indent=2, allow_nan=False) + "\n").encode("ascii")


def plain(value: Any) -> Any:
    """The value in types that JSON has."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(content) for key, content in value.items()}
    if hasattr(value, "tolist"):  # numpy's arrays and numbers
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [plain(content) for content in value]
    if isinstance(value, Path):
        return str(value)
    return None if is_missing(value) else value
