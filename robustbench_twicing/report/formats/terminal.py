"""A page in the terminal: as wide as there is room, names folded, numbers never cut, nothing taken for markup."""

import io
from collections.abc import Sequence
from typing import NamedTuple

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from robustbench_twicing.report.page import Column, Into, Line, Page, Row, Table
from robustbench_twicing.report.text import STYLES, WITHOUT_TERMINAL, visible

_LEAST = {"name": 16, "prose": 30, "curve": 30, "trend": 15}
"""Columns that a text wants at least: if not all have as many, the table is shown in its narrow form."""
_LEAST_OF_ALL, _HEADING = 6, 12
"""What a text gets in the narrowest terminal; more for a heading's longest word, up to so much."""

_SEPARATORS = "-_/:.@,;=]"
"""Behind these a name is folded, if there is one in its last half."""


def write(page: Page) -> bytes:
    """The page as plain text of 150 columns, UTF-8."""
    file = io.StringIO()
    show(page, Console(file=file, width=WITHOUT_TERMINAL, color_system=None))
    return file.getvalue().encode()


def show(page: Page, console: Console) -> None:
    """Print a page. The headline comes last, next to the prompt, where it is seen."""
    for part in page.parts:
        if isinstance(part, Line):
            _show_line(part, console)
        elif isinstance(part, Table):
            _show_table(part, console)
    if page.headline:
        _show_line(page.headline, console)


def _show_line(line: Line, console: Console) -> None:
    text = visible(line.text, console.encoding)
    if not line.unbroken:
        text = "\n".join(_by_words(text, console.width))
    console.print(Text(text, style=STYLES[line.tone]), soft_wrap=True)


class _Laid(NamedTuple):
    """A column, laid out."""

    column: Column
    heading: str
    cells: list[str]
    width: int


def _show_table(table: Table, console: Console) -> None:
    if not table.rows:
        return
    laid, dropped = _laid_out(table, console)
    if table.title:
        _show_line(Line(table.title, "strong"), console)
    drawn = _framed(table, laid, console.encoding) if table.framed else _listed(table, laid)
    console.print(drawn, end="", soft_wrap=True)
    if dropped:
        names = ", ".join(dropped)
        remark = f"Left out at {console.width} columns: {names}. A wider terminal or --json shows them."
        _show_line(Line(remark, "note"), console)


def _listed(table: Table, laid: Sequence[_Laid]) -> Text:
    """Names and what they stand for, side by side."""
    text = Text()
    if any(part.heading for part in laid):
        _add_row(text, [(part.heading, "") for part in laid], laid, ("", "  ", ""))
    for number, row in enumerate(table.rows):
        _add_row(text, [(part.cells[number], STYLES[part.column.tone(row)]) for part in laid], laid, ("", "  ", ""))
    return text


def _framed(table: Table, laid: Sequence[_Laid], encoding: str) -> Text:
    """A grid with a heavy head; a line between groups."""

    def rule(left: str, fill: str, cross: str, right: str) -> str:
        return visible(left + cross.join(fill * (part.width + 2) for part in laid) + right, encoding) + "\n"

    heavy, light = (visible(sign, encoding) for sign in "┃│")
    text = Text(rule("┏", "━", "┳", "┓"))
    _add_row(text, [(part.heading, "bold") for part in laid], laid, (f"{heavy} ", f" {heavy} ", f" {heavy}"))
    text.append(rule("┡", "━", "╇", "┩"))
    for number, row in enumerate(table.rows):
        if number and table.groups and table.group_of(row) != table.group_of(table.rows[number - 1]):
            text.append(rule("├", "─", "┼", "┤"))
        cells = [(part.cells[number], STYLES[part.column.tone(row)]) for part in laid]
        _add_row(text, cells, laid, (f"{light} ", f" {light} ", f" {light}"))
    text.append(rule("└", "─", "┴", "┘"))
    return text


def _add_row(text: Text, cells: Sequence[tuple[str, str]], laid: Sequence[_Laid], bars: tuple[str, str, str]) -> None:
    """The lines of one row; `cells` are texts, folded already, and styles; `bars` stand left, between and right."""
    left, between, right = bars
    columns = [cell.split("\n") for cell, _ in cells]
    for number in range(max(map(len, columns))):
        text.append(left)
        for position, (part, lines, (_, style)) in enumerate(zip(laid, columns, cells, strict=True)):
            line = lines[number] if number < len(lines) else ""
            space = " " * (part.width - cell_len(line))
            if part.column.is_number:
                text.append(space)
            text.append(line, style)
            last = position == len(laid) - 1
            if not part.column.is_number and (right or not last):
                text.append(space)
            text.append(right if last else between)
        text.append("\n")


def _laid_out(table: Table, console: Console) -> tuple[list[_Laid], list[str]]:
    """The columns that are shown, folded to the width, and the headings of those that are left out."""
    laid = _whole(table, console.encoding)
    if _frame(table, laid) + sum(_least(part) for part in laid) <= console.width:
        return _folded(table, laid, console.width), []
    laid = _narrow(table, console.encoding)
    dropped = {column.key for column in table.columns if column.narrow == "drop"}
    for part in [part for part in reversed(laid) if part.column.narrow == "last"]:
        if _frame(table, laid) + sum(_bare_least(part) for part in laid) <= console.width:
            break
        laid.remove(part)
        dropped.add(part.column.key)
    return _folded(table, laid, console.width), [column.heading for column in table.columns if column.key in dropped]


def _whole(table: Table, encoding: str) -> list[_Laid]:
    return [
        _measured(column, column.heading, [_text(column, row, encoding) for row in _said_once(table, column)], encoding)
        for column in table.columns
    ]


def _narrow(table: Table, encoding: str) -> list[_Laid]:
    """Without the columns that are dropped; those that go into others stand there."""
    laid = []
    for column in table.columns:
        if column.narrow not in ("keep", "last"):
            continue
        within = [(other, other.narrow) for other in table.columns if isinstance(other.narrow, Into)]
        inside = [(other, into) for other, into in within if into.column == column.key]
        cells = [
            _text(column, row, encoding) + "".join(_within(other, into, whole, encoding) for other, into in inside)
            for row, whole in zip(_said_once(table, column), table.rows, strict=True)
        ]
        laid.append(_measured(column, column.short or column.heading, cells, encoding))
    return laid


def _text(column: Column, row: Row, encoding: str) -> str:
    """The value on one line; a line break comes from the layout alone."""
    return visible(column.written(row), encoding)


def _within(column: Column, into: Into, row: Row, encoding: str) -> str:
    text = _text(column, row, encoding)
    before, after = ("\n".join(visible(line, encoding) for line in part.split("\n")) for part in into[1:])
    return f"{before}{text}{after}" if text else ""


def _said_once(table: Table, column: Column) -> Sequence[Row]:
    """The rows, without what the column has said already in the row above of the same group."""
    if column.key not in table.groups:
        return table.rows
    rows: list[Row] = []
    for number, row in enumerate(table.rows):
        again = number and table.group_of(row) == table.group_of(table.rows[number - 1])
        rows.append({} if again else row)
    return rows


def _measured(column: Column, heading: str, cells: list[str], encoding: str) -> _Laid:
    heading = visible(heading, encoding)
    lines = [line for cell in cells for line in cell.split("\n")]
    return _Laid(column, heading, cells, max(map(cell_len, [*lines, heading]), default=0))


def _least(part: _Laid) -> int:
    """Columns below which it is not pleasant to read; for a number, all that it has."""
    if part.column.is_number:
        return part.width
    return min(part.width, max(_LEAST[part.column.kind], cell_len(part.heading)))


def _bare_least(part: _Laid) -> int:
    """Columns that it cannot do without."""
    if part.column.is_number:
        return part.width
    return min(part.width, max(_LEAST_OF_ALL, min(_HEADING, max(map(cell_len, part.heading.split(" "))))))


def _frame(table: Table, laid: Sequence[_Laid]) -> int:
    """Columns that lines and spaces take."""
    return 3 * len(laid) + 1 if table.framed else 2 * (len(laid) - 1)


def _folded(table: Table, laid: list[_Laid], width: int) -> list[_Laid]:
    """Every column with its width, and its cells folded to it."""
    room = width - _frame(table, laid)
    least = [_least(part) for part in laid]
    if sum(least) > room:
        least = [_bare_least(part) for part in laid]
    widths = _shared(least, [part.width for part in laid], room)
    return [_fold(part, columns) for part, columns in zip(laid, widths, strict=True)]


def _shared(least: list[int], wanted: list[int], room: int) -> list[int]:
    """`least`, and what is left of the room, column by column to whoever has least of those that want more."""
    widths = list(least)
    for _ in range(max(0, room - sum(least))):
        hungry = [index for index, columns in enumerate(widths) if columns < wanted[index]]
        if not hungry:
            break
        widths[min(hungry, key=widths.__getitem__)] += 1
    return widths


def _fold(part: _Laid, width: int) -> _Laid:
    if part.column.is_number:
        return part._replace(width=width)
    if part.column.kind == "trend":
        cells = [cell[-width:] for cell in part.cells]  # the newest
    else:
        cells = ["\n".join(line for text in cell.split("\n") for line in _by_words(text, width)) for cell in part.cells]
    return part._replace(heading="\n".join(_by_words(part.heading, width)), cells=cells, width=width)


def _by_words(text: str, width: int) -> list[str]:
    """Lines of at most `width` columns, broken between words; a word that is longer is folded."""
    lines = [""]
    for word in text.split(" "):
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        if cell_len(joined) <= width:
            lines[-1] = joined
        else:
            pieces = _anywhere(word, width)
            lines[-1:] = pieces if not lines[-1] else [lines[-1], *pieces]
    return lines


def _anywhere(text: str, width: int) -> list[str]:
    """Lines of at most `width` columns, broken behind a separator where there is one late in the line."""
    lines = []
    while cell_len(text) > width:
        end = width if text.isascii() else 1
        while end < len(text) and cell_len(text[: end + 1]) <= width:
            end += 1
        good = [place for place in range(end, end // 2, -1) if text[place - 1] in _SEPARATORS]
        end = good[0] if good else end
        lines.append(text[:end])
        text = text[end:]
    return [*lines, text]
