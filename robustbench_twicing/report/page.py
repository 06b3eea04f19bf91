"""What a report says, and nothing of how it looks: lines, tables and curves of raw values.

A page holds no markup and knows no width; a format (`report/formats/`) knows neither models nor threats. So a page is
written once, and every format can show it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from robustbench_twicing.report.marks import Tone
from robustbench_twicing.report.numbers import KINDS, TEXT_KINDS


@dataclass(frozen=True)
class Line:
    """A sentence, or a few."""

    text: str
    tone: Tone = "plain"
    unbroken: bool = False
    """Never wrapped: ends in a path or a command that somebody copies."""


class Into(NamedTuple):
    """Where there is little room, a column's values stand within those of another column."""

    column: str
    """The other column's key."""
    before: str
    """What stands between its text and the value, such as a line break and an opening bracket."""
    after: str = ""


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    key: str
    """Names the value within a row; stable, for machines."""
    heading: str
    kind: str = "name"
    """What the values are: a key of `numbers.KINDS`."""
    narrow: Literal["keep", "drop", "last", "spare"] | Into = "keep"
    """What becomes of it where the whole table has no room: it stays, is left out and named, is so only if there is
    still no room (from the right), is left out without a word because other columns say the same, or goes into another
    column."""
    short: str = ""
    """The heading there, if it is another one."""
    tones: Mapping[str, Tone] = field(default_factory=dict)
    """The tone of a value, for the few values that have one."""
    toned_by: str = ""
    """Key of the value that decides the tone, if it is another one."""
    shaded: bool = False
    """The values are fractions that a format with colours shades, the higher the darker: such a table is a heat map."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"column {self.key!r} is of the unknown kind {self.kind!r}")

    @property
    def is_number(self) -> bool:
        """Stands right, and is never broken or cut."""
        return self.kind not in TEXT_KINDS

    def written(self, row: "Row") -> str:
        """The text of its value in a row; empty if the row has none."""
        return KINDS[self.kind](row[self.key]) if self.key in row else ""

    def tone(self, row: "Row") -> Tone:
        """The tone of its value in a row."""
        value = row.get(self.toned_by or self.key)
        return self.tones.get(value, "plain") if isinstance(value, str) else "plain"


Row = Mapping[str, Any]
"""Raw values by the columns' keys: fractions, counts, names. May hold more than the columns show; a value that means
nothing in this row is left out, one that nobody knows is None or nan."""


@dataclass(frozen=True, eq=False)
class Table:
    """Rows under headings. Raises `ValueError` if the columns do not fit together."""

    key: str
    """Names the table within the page; stable, for machines."""
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    groups: tuple[str, ...] = ()
    """Consecutive rows with the same values under these keys belong together, and say these values once."""
    framed: bool = True
    """False for a list of names and what they stand for."""
    aside: bool = False
    """What only some readers want: a format that can fold it away does."""

    def __post_init__(self) -> None:
        keys = [column.key for column in self.columns]
        hosts = [column.narrow.column for column in self.columns if isinstance(column.narrow, Into)]
        unknown = [host for host in hosts if host not in keys]
        if unknown or len(set(keys)) < len(keys):
            raise ValueError(f"table {self.key!r}: columns {keys}, within {hosts}")

    def group_of(self, row: Row) -> tuple[Any, ...]:
        """What rows that belong together have in common."""
        return tuple(row.get(key) for key in self.groups)


@dataclass(frozen=True)
class Graph:
    """One line of a drawing: values in [0, 1] with their intervals, over `Curves.x`."""

    name: str
    values: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class Curves:
    """Graphs over a common axis: a drawing, for formats that can draw. The page's tables say the same."""

    key: str
    title: str
    x_heading: str
    x: tuple[float, ...]
    x_labels: tuple[str, ...]
    graphs: tuple[Graph, ...]
    y_heading: str = "accuracy in %"


class Picture(NamedTuple):
    """One sample, as some images side by side."""

    title: str
    images: tuple[tuple[str, Any], ...]
    """What each is, and its levels: an array (height, width, 3) of uint8."""
    said: tuple[str, ...]
    """Lines below it."""


@dataclass(frozen=True, eq=False)
class Gallery:
    """Pictures, for formats that can show them."""

    key: str
    title: str
    pictures: tuple[Picture, ...]
    about: str


class Judged(NamedTuple):
    """One thing that the page passes a verdict on, for formats of CI systems."""

    group: str
    """Such as a model."""
    name: str
    verdict: str
    """In the page's own word."""
    outcome: Literal["passed", "failed", "unclear"]
    reason: str


class Sheet(NamedTuple):
    """What a spreadsheet gets: rows of raw values under documented names."""

    rows: tuple[Row, ...]
    names: tuple[str, ...]
    """Keys that say what a row is about; the numbers under other keys are its figures."""


@dataclass(frozen=True, eq=False)
class Page:
    """What a report says."""

    title: str
    """What it is about, in a few words."""
    parts: tuple[Line | Table | Curves | Gallery, ...]
    """In the order of reading."""
    headline: Line | None = None
    """The verdict in one sentence, if there is one."""
    facts: Any = None
    """Everything for machines: dicts and lists of raw values. Left out, it is the tables' rows, by the tables' keys."""
    judged: tuple[Judged, ...] = ()
    sheet: Sheet | None = None
    """Left out, it is the rows of all tables."""
    front: Mapping[str, Any] | None = None
    """Plain values for machines that Markdown has above everything, as YAML."""

    @property
    def tables(self) -> tuple[Table, ...]:
        """The page's tables, in order."""
        return tuple(part for part in self.parts if isinstance(part, Table))

    @property
    def curves(self) -> tuple[Curves, ...]:
        """The page's drawings, in order."""
        return tuple(part for part in self.parts if isinstance(part, Curves))
