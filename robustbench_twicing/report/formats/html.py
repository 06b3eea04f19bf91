"""A page as one HTML file that asks nobody for anything: style, script and drawings are inside.

Drawings are SVG of our own, so that they follow the reader's light or dark colours and need no package. A table of
shaded columns is the heat map: its numbers can be read, sorted and heard.
"""

import base64
import hashlib
import io
from collections.abc import Iterator
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from robustbench_twicing.report.numbers import Figure, is_missing, percent
from robustbench_twicing.report.page import Column, Curves, Gallery, Line, Page, Row, Table
from robustbench_twicing.report.text import visible

_HERE = Path(__file__).parent
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 560, 320, 48, 540, 14, 270
"""Of a drawing, and of the field within it."""
_COLOURS, _MARKERS = 6, 4
_SMALL, _THUMB = 96, 192
"""Pixels a side."""
_NAME = 40
"""Letters of a name that is never broken."""


def write(page: Page) -> bytes:
    """HTML, UTF-8. Every text is text: the template escapes it, and the page forbids every script but its own."""
    ids = (f"part{number}" for number in count(1))
    parts = [_part(part, next(ids)) for part in page.parts if not isinstance(part, Table) or part.rows]
    written: str = _template("page.html.jinja").render(
        title=visible(page.title),
        headline=page.headline and {"text": visible(page.headline.text), "tone": page.headline.tone},
        parts=parts,
        contents=[part for part in parts if part.get("title")],
        style=Markup(_own("page.css")),
        script=Markup(_own("page.js")),
        script_hash=_hash(_own("page.js")),
    )
    return written.encode() + b"\n"


def tables(page: Page) -> str:
    """Only the tables, without style or script, for a notebook."""
    whole = _template("parts.html.jinja").module
    drawn: list[str] = []
    for number, part in enumerate(page.tables):
        if part.rows:
            drawn.append(str(whole.table(_table(part, f"table{number}"))))
    return "\n".join(drawn)


@cache
def _template(name: str) -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # which every command would import with the table

    made = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return made.get_template(name)


@cache
def _own(name: str) -> str:
    return (_HERE / name).read_text("utf-8")


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _part(part: Line | Table | Curves | Gallery, name: str) -> dict[str, Any]:
    if isinstance(part, Gallery):
        return _gallery(part, name)
    if isinstance(part, Line):
        return {"kind": "line", "text": visible(part.text), "tone": part.tone, "unbroken": part.unbroken}
    return _table(part, name) if isinstance(part, Table) else _curves(part, name)


# --- tables ----------------------------------------------------------------------------------------------------------


def _table(table: Table, name: str) -> dict[str, Any]:
    headings = [{"text": visible(column.heading), "number": column.is_number} for column in table.columns]
    return {
        "kind": "table",
        "id": name,
        "title": visible(table.title),
        "label": visible(table.title or table.key),
        "aside": table.aside,
        "framed": table.framed,
        "headings": headings if any(heading["text"] for heading in headings) else [],
        "rows": list(_rows(table)),
    }


def _rows(table: Table) -> Iterator[dict[str, Any]]:
    """Every row says all its values, so that it can be sorted; `first` begins a group."""
    before: Row | None = None
    for row in table.rows:
        again = before is not None and bool(table.groups) and table.group_of(row) == table.group_of(before)
        yield {"first": not again, "cells": [_cell(column, row, place) for place, column in enumerate(table.columns)]}
        before = row


def _cell(column: Column, row: Row, place: int) -> dict[str, Any]:
    value = row.get(column.key)
    tone = column.tone(row)
    text = visible(column.written(row))
    kind = "number" if column.is_number else "prose" if column.kind == "prose" or len(text) > _NAME else "name"
    shade = round(100 * value, 1) if column.shaded and isinstance(value, float) and not is_missing(value) else None
    classes = [kind, *([tone] if tone != "plain" else []), *(["shaded"] if shade is not None else [])]
    return {
        "tag": "td" if place else "th",
        "classes": " ".join(classes),
        "text": text,
        "value": _sorted_by(value),
        "shade": shade,
    }


def _sorted_by(value: Any) -> str | None:
    """The number by which a cell is sorted; None for one that is sorted by its text."""
    if isinstance(value, tuple) and value and not isinstance(value, Figure):
        value = value[0]
    if isinstance(value, Figure):
        value = value.number
    return None if isinstance(value, bool) or not isinstance(value, (int, float)) or is_missing(value) else repr(value)


# --- pictures --------------------------------------------------------------------------------------------------------


def _gallery(gallery: Gallery, name: str) -> dict[str, Any]:
    return {
        "kind": "gallery",
        "id": name,
        "title": visible(gallery.title),
        "about": visible(gallery.about),
        "pictures": [
            {
                "title": visible(picture.title),
                "images": [
                    {"said": visible(said), "alt": visible(f"{picture.title}: {said}"), "uri": _uri(levels)}
                    for said, levels in picture.images
                ],
                "said": [visible(line) for line in picture.said],
            }
            for picture in gallery.pictures
        ],
    }


def _uri(levels: np.ndarray) -> str:
    """PNG of a small image, as it is; of a larger one a JPEG of `_THUMB` pixels."""
    from PIL import Image  # which only pages with pictures need

    image, buffer = Image.fromarray(levels), io.BytesIO()
    small = max(image.size) <= _SMALL
    if not small:
        image.thumbnail((_THUMB, _THUMB))
    image.save(buffer, "PNG" if small else "JPEG", **({"optimize": True} if small else {"quality": 85}))
    return f"data:image/{'png' if small else 'jpeg'};base64,{base64.b64encode(buffer.getvalue()).decode()}"


# --- drawings --------------------------------------------------------------------------------------------------------


def _curves(curves: Curves, name: str) -> dict[str, Any]:
    widest = max(curves.x) or 1.0
    across = [_LEFT + 14 + (_RIGHT - _LEFT - 28) * x / widest for x in curves.x]
    return {
        "kind": "curves",
        "id": name,
        "title": visible(curves.title),
        "x_heading": visible(curves.x_heading),
        "y_heading": visible(curves.y_heading),
        "width": _WIDTH,
        "height": _HEIGHT,
        "left": _LEFT,
        "right": _RIGHT,
        "bottom": _BOTTOM,
        "grid": [{"y": _down(share / 100), "text": str(share)} for share in range(0, 101, 20)],
        "ticks": [{"x": _short(x), "text": visible(label)} for x, label in zip(across, curves.x_labels, strict=True)],
        "graphs": [_graph(curves, number, across) for number in range(len(curves.graphs))],
    }


def _graph(curves: Curves, number: int, across: list[float]) -> dict[str, Any]:
    graph = curves.graphs[number]

    def path(values: tuple[float, ...]) -> list[str]:
        return [f"{_short(x)},{_down(value)}" for x, value in zip(across, values, strict=True)]

    name = visible(graph.name)
    each = zip(across, graph.values, graph.low, graph.high, curves.x_labels, strict=True)
    return {
        "name": name,
        "style": f"s{number % _COLOURS}",
        "marker": number % _MARKERS,
        "line": " ".join(path(graph.values)),
        "band": " ".join([*path(graph.low), *reversed(path(graph.high))]),
        "points": [
            {
                "x": _short(x),
                "y": _down(value),
                "said": f"{name}, {visible(label)}: {percent(value)} % ({percent(low)} - {percent(high)})",
            }
            for x, value, low, high, label in each
        ],
    }


def _down(share: float) -> float:
    """Where a fraction stands, from the top."""
    return _short(_BOTTOM - (_BOTTOM - _TOP) * share)


def _short(place: float) -> float:
    return round(place, 2)
