"""A page's tables as LaTeX with booktabs: a document that compiles as it is, each table to be copied by itself."""

from collections.abc import Iterator

from robustbench_twicing.report.page import Column, Line, Page, Row, Table
from robustbench_twicing.report.text import visible

_HEAD = r"""% {title}
% Made by twicing-bench. To copy a table into a paper: it needs \usepackage{{booktabs}}, long ones also {{longtable}}.
\documentclass{{article}}
\usepackage[T1]{{fontenc}}
\usepackage[utf8]{{inputenc}}
\IfFileExists{{lmodern.sty}}{{\usepackage{{lmodern}}}}{{}}
\usepackage{{booktabs,longtable}}
\usepackage[a4paper,landscape,margin=15mm]{{geometry}}
\begin{{document}}
\small\raggedright
"""
_ROWS_ON_A_PAGE = 28
"""A longer table is broken over pages."""
_FLOATS = 12
"""LaTeX holds no more than 18 tables that have no page yet."""
_SIGNS = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{char: f"\\{char}" for char in "&%$#_{}"},
    **{char: f"{{{char}}}" for char in "<>-\"'`[]|?!"},  # no ligatures, and no optional argument
    "−": "$-$",
    "–": "--",
    "∞": r"$\infty$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "→": r"$\rightarrow$",
    "×": r"$\times$",
    "±": r"$\pm$",
    "·": r"$\cdot$",
}
"""What LaTeX reads as a sign, or its fonts lack."""
_ALIGNED = {"prose": r"p{55mm}", "curve": r"p{75mm}"}


def write(page: Page) -> bytes:
    """The headline, the lines and the tables, ASCII and Latin-1 letters in UTF-8; other letters are escaped codes."""
    text = [_HEAD.format(title=_comment(page.title))]
    if page.headline:
        text.append(f"\\textbf{{{_plain(page.headline.text)}}}\n")
    floats = 0
    for part in page.parts:
        if isinstance(part, Line):
            text.append(f"{_plain(part.text)}\n")
        elif isinstance(part, Table) and part.rows:
            text += _table(part)
            floats += 1
            text += ["\\clearpage"] if floats % _FLOATS == 0 else []
    return ("\n".join([*text, "\\end{document}"]) + "\n").encode()


def _comment(text: str) -> str:
    return visible(text, "latin-1")


def _table(table: Table) -> Iterator[str]:
    columns = "".join("r" if c.is_number else _ALIGNED.get(c.kind, "l") for c in table.columns)
    long = len(table.rows) > _ROWS_ON_A_PAGE
    caption = f"\\caption{{{_plain(table.title)}}}" if table.title else ""
    if long:
        yield f"\\begin{{longtable}}{{{columns}}}"
        yield f"{caption}\\\\" if caption else ""
    else:
        yield f"\\begin{{table}}[ht]\n\\centering\\small\n{caption}\n\\begin{{tabular}}{{{columns}}}"
    yield "\\toprule"
    if any(column.heading for column in table.columns):
        yield f"{_row([_plain(column.heading) for column in table.columns])}\n\\midrule"
    if long:
        yield "\\endhead"
    before: Row | None = None
    for row in table.rows:
        again = before is not None and bool(table.groups) and table.group_of(row) == table.group_of(before)
        if before is not None and table.groups and not again:
            yield "\\addlinespace"
        yield _row(["" if again and column.key in table.groups else _cell(column, row) for column in table.columns])
        before = row
    yield "\\bottomrule"
    yield "\\end{longtable}" if long else "\\end{tabular}\n\\end{table}"
    yield ""


def _row(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _cell(column: Column, row: Row) -> str:
    return _plain(column.written(row))


def _plain(text: str) -> str:
    """Text that LaTeX sets as it is."""
    return "".join(_SIGNS.get(char) or _SIGNS.get(visible(char, "latin-1")) or _letters(char) for char in visible(text))


def _letters(char: str) -> str:
    """A letter that the fonts have, or what stands for it."""
    known = visible(char, "latin-1")
    return known if known == char else "".join(_SIGNS.get(part, part) for part in known)
