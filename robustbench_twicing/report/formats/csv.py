"""A page's raw values for spreadsheets and scripts, UTF-8: a row for each row, or in the long form for each value."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from robustbench_twicing.report.formats.json import plain
from robustbench_twicing.report.numbers import is_missing
from robustbench_twicing.report.page import Page, Sheet
from robustbench_twicing.report.text import visible
from robustbench_twicing.results.store import no_formula


def write(page: Page) -> bytes:
    """A column for each name that some row has; empty where a row has none, or nobody knows the value."""
    rows = _sheet(page).rows
    names = list(dict.fromkeys(name for row in rows for name in row))
    return _lines([names, *([row.get(name) for name in names] for row in rows)])


def write_long(page: Page) -> bytes:
    """A line for each number that is known: what it is of, what it is called, the value."""
    rows, about = _sheet(page)
    lines: list[Sequence[Any]] = [[*about, "figure", "value"]]
    for row in rows:
        said = [row.get(name) for name in about]
        for figure, value in row.items():
            known = isinstance(value, (int, float)) and not is_missing(value)
            if known and figure not in about:
                lines.append([*said, figure, value])
    return _lines(lines)


def _sheet(page: Page) -> Sheet:
    if page.sheet is not None:
        return page.sheet
    rows = tuple({"table": table.key, **row} for table in page.tables for row in table.rows)
    columns = {column.key: column.is_number for table in page.tables for column in table.columns}
    return Sheet(rows, ("table", *(key for key, is_number in columns.items() if not is_number)))


def _lines(lines: Sequence[Sequence[Any]]) -> bytes:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([_cell(value) for value in line] for line in lines)
    return file.getvalue().encode()


def _cell(value: Any) -> Any:
    """Numbers with every digit; a text that a spreadsheet would compute gets the apostrophe that makes it a text."""
    value = plain(value)
    if value is None:
        return ""
    if isinstance(value, (list, Mapping)):
        value = ", ".join(map(str, value))
    if not isinstance(value, str):
        return value
    return no_formula(visible(value))
