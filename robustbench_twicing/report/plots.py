"""A page's drawings as pictures. Needs matplotlib: pip install 'twicing-bench[plots]'.

Sizes are those of papers: a curve is one column of text wide, a heat map two. Fonts are embedded in PDF, and text stays
text in SVG.
"""

import io
import re
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from textwrap import wrap
from typing import Any

from robustbench_twicing.errors import UserError
from robustbench_twicing.report.numbers import percent
from robustbench_twicing.report.page import Curves, Gallery, Page, Table
from robustbench_twicing.report.text import visible
from robustbench_twicing.results.store import require_writable, write_whole

FORMATS = (".png", ".svg", ".pdf")

_ONE_COLUMN, _TWO_COLUMNS = 3.3, 6.9
"""Widths in inches."""
_SETTINGS: Any = {"pdf.fonttype": 42, "svg.fonttype": "none", "font.size": 8, "svg.hashsalt": "twicing-bench"}
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Told apart by colour-blind people: Okabe and Ito, https://jfly.uni-koeln.de/color/."""
_MARKERS = "osD^vP"


def require_matplotlib() -> None:
    """Raise `UserError` now rather than after the work if there is no matplotlib."""
    try:
        import_module("matplotlib.figure")
    except ImportError:
        raise UserError("Plots need matplotlib.", "pip install 'twicing-bench[plots]'") from None


def require_plots(path: Path) -> None:
    """Raise `UserError` now rather than after the work if no plot can be written as `path`."""
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"Cannot write a plot as {path.suffix or path.name!r}.", f"End it in {', '.join(FORMATS)}.")
    require_matplotlib()
    require_writable(path.parent)


def plot_curves(curves: Sequence[Curves], path: Path) -> None:
    """Write a panel for each of the curves, with the intervals as bands. Raises `UserError`.

    `path` ends in .png, .svg or .pdf.
    """
    require_plots(path)
    if not curves:
        raise UserError("There is no curve to plot.", "A curve needs clean images and an attack at one eps or more.")
    write_whole(path, _picture(_curves(curves), path.suffix.lower()))


def save_plots(page: Page, folder: Path) -> None:
    """Write every drawing of a page into a folder, as PNG, SVG and PDF.

    A table of shaded columns is a heat map, a gallery of pictures an image sheet.
    Nothing is written before everything is drawn. Raises `UserError` if the page has nothing to draw.
    """
    figures = {_file_name(drawn.key): _curves([drawn]) for drawn in page.curves}
    shaded = [table for table in page.tables if any(column.shaded for column in table.columns) and table.rows]
    figures |= {_file_name(table.key): _heat_map(table) for table in shaded}
    figures |= {_file_name(part.key): _sheet(part) for part in page.parts if isinstance(part, Gallery)}
    if not figures:
        raise UserError("There is nothing to plot.", "A run with attacks at some eps, or with corruptions, has plots.")
    pictures = {f"{name}{form}": _picture(figure, form) for name, figure in figures.items() for form in FORMATS}
    for name, content in pictures.items():
        write_whole(folder / name, content)


def _picture(figure: Any, form: str) -> bytes:
    from matplotlib import rc_context

    file = io.BytesIO()
    dated = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}[form]  # the same page, the same file
    with rc_context(_SETTINGS):
        figure.savefig(file, format=form[1:], dpi=300, metadata=dated)
    return file.getvalue()


def _file_name(key: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", key).strip("-.")[:80] or "plot"


def _curves(curves: Sequence[Curves]) -> Any:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_SETTINGS):
        figure = Figure(figsize=(_ONE_COLUMN * len(curves), 2.6), layout="constrained")
        panels = figure.subplots(1, len(curves), sharey=True, squeeze=False)[0]
        for panel, drawn in zip(panels, curves, strict=True):
            for number, graph in enumerate(drawn.graphs):
                colour = _COLOURS[number % len(_COLOURS)]
                low, heights, high = ([100 * value for value in line] for line in (graph.low, graph.values, graph.high))
                marker = _MARKERS[number % len(_MARKERS)]
                panel.plot(drawn.x, heights, color=colour, marker=marker, markersize=3, label=_literal(graph.name))
                panel.fill_between(drawn.x, low, high, color=colour, alpha=0.2, linewidth=0)
            panel.set_xticks(drawn.x, drawn.x_labels)
            panel.set(title=_literal(drawn.title), xlabel=drawn.x_heading, ylim=(0, 102))
            panel.legend()
        panels[0].set_ylabel(curves[0].y_heading)
    return figure


def _heat_map(table: Table) -> Any:
    """The shaded columns as a picture, a line for each row of the table, the number in every field."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    shaded = [column for column in table.columns if column.shaded]
    names = [
        _literal(" · ".join(column.written(row) for column in table.columns if not column.is_number))
        for row in table.rows
    ]
    values = [[float("nan") if row[c.key] is None else float(row[c.key]) for c in shaded] for row in table.rows]
    with rc_context(_SETTINGS):
        figure = Figure(figsize=(_TWO_COLUMNS, 0.6 + 0.17 * len(names)), layout="constrained")
        panel = figure.subplots()
        panel.imshow(values, cmap="cividis", vmin=0, vmax=1, aspect="auto")
        panel.set_xticks(range(len(shaded)), [_literal(column.heading) for column in shaded])
        panel.set_yticks(range(len(names)), names)
        panel.set_title(_literal(table.title))
        for place, line in enumerate(values):
            for other, value in enumerate(line):
                panel.text(other, place, percent(value), ha="center", va="center", color="w" if value < 0.5 else "k")
    return figure


def _sheet(gallery: Gallery) -> Any:
    """The pictures of a gallery, two abreast, what is said of each below it."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    lines = -(-len(gallery.pictures) // 2)
    most = max(len(picture.images) for picture in gallery.pictures)
    said = max(len(picture.said) for picture in gallery.pictures)
    with rc_context({**_SETTINGS, "font.size": 6}):
        figure = Figure(figsize=(_TWO_COLUMNS, 0.4 + lines * (0.75 + 0.1 * said + _TWO_COLUMNS / (2 * most))))
        figure.suptitle(_literal(gallery.title), fontsize=8)
        figure.set_layout_engine("constrained")
        for part, picture in zip(figure.subfigures(lines, 2, squeeze=False).flat, gallery.pictures, strict=False):
            part.suptitle(_literal(picture.title), fontsize=6)
            part.supxlabel("\n".join(map(_literal, picture.said)), fontsize=6)
            panels = part.subplots(1, most, squeeze=False)[0]
            for panel in panels:
                panel.set_axis_off()
            for panel, (name, levels) in zip(panels, picture.images, strict=False):
                panel.imshow(levels, interpolation="nearest")
                panel.set_title("\n".join(wrap(_literal(name), 24)), fontsize=5)
    return figure


def _literal(name: str) -> str:
    """Text in which matplotlib sees no formula, and no label that it would hide."""
    literal = visible(name).replace("$", r"\$")
    return f" {literal}" if literal.startswith("_") else literal
