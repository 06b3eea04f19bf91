"""A page as Markdown, for pull requests and CI pages: GitHub's tables, what is aside folded away."""

from collections.abc import Iterator

from robustbench_twicing.report.page import Line, Page, Row, Table
from robustbench_twicing.report.text import visible

_ESCAPED = {**{char: f"\\{char}" for char in "\\`*_[]|~"}, "&": "&amp;", "<": "&lt;"}
_AT_THE_BEGINNING = ("#", ">", "-", "+", "=")
"""What would make a heading, a quotation or a list of a line."""
_WEIGHT = {"strong": "**{}**", "bad": "**{}**"}


def write(page: Page) -> bytes:
    """GitHub's Markdown, UTF-8. Text is text: it breaks no table, opens no tag, and is neither emphasis nor heading."""
    lines = [*_front(page), f"## {_plain(page.headline.text if page.headline else page.title)}", ""]
    for part in page.parts:
        if isinstance(part, Line):
            lines += [_WEIGHT.get(part.tone, "{}").format(_plain(part.text)), ""]
        elif isinstance(part, Table) and part.rows:
            lines += [*_aside(part), ""] if part.aside else [*_table(part), ""]
    return ("\n".join(lines).rstrip("\n") + "\n").encode()


def _front(page: Page) -> Iterator[str]:
    if page.front is not None:
        import yaml  # which few pages need

        yield "---"
        yield yaml.safe_dump(dict(page.front), sort_keys=False, allow_unicode=True, width=120).rstrip("\n")
        yield "---"
        yield ""


def _aside(table: Table) -> Iterator[str]:
    yield f"<details><summary>{_plain(table.title)}</summary>"
    yield ""
    yield from _grid(table)
    yield ""
    yield "</details>"


def _table(table: Table) -> Iterator[str]:
    if table.title:
        yield f"**{_plain(table.title)}**"
        yield ""
    yield from _grid(table)


def _grid(table: Table) -> Iterator[str]:
    yield _row([column.heading for column in table.columns])
    yield _row(["---:" if column.is_number else "---" for column in table.columns], escaped=True)
    before: Row | None = None
    for row in table.rows:
        again = before is not None and bool(table.groups) and table.group_of(row) == table.group_of(before)
        yield _row(["" if again and column.key in table.groups else column.written(row) for column in table.columns])
        before = row


def _row(cells: list[str], escaped: bool = False) -> str:
    return "| " + " | ".join(cells if escaped else map(_plain, cells)) + " |"


def _plain(text: str) -> str:
    escaped = "".join(_ESCAPED.get(char, char) for char in visible(text))
    return f"\\{escaped}" if escaped.startswith(_AT_THE_BEGINNING) else escaped
