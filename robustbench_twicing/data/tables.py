"""Pictures in Parquet and Arrow files, as Hugging Face's datasets writes them (https://huggingface.co/docs/datasets).

A row holds the bytes of an image's file, perhaps its name, and a label. In Arrow a row is reached at once. In Parquet
a whole row group is read for it, so the last groups are kept in memory.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from robustbench_twicing.data.archives import Tree, join
from robustbench_twicing.data.labelled import Picture, labelled_tree, split_of
from robustbench_twicing.errors import UserError, shown
from robustbench_twicing.spec.suite import SuiteSpec

ENDINGS = (".parquet", ".arrow")
_IMAGES, _LABELS = (
    ("image", "img", "jpg", "png", "picture"),
    ("label", "fine_label", "labels", "class", "cls", "target"),
)
"""Names of columns, where the file does not say which is which, or has several; the first that is there."""
_FORM = (
    "Taken is a column of images (their files' bytes, or a struct of bytes and path) and one of labels (whole numbers "
    "or names), as Hugging Face's datasets writes them."
)
_KEPT = 2**28
"""Bytes of row groups that stay in memory."""


def tables_in(tree: Tree) -> list[str]:
    """Paths of tables at the top of a tree, in `data`, in `default`, in folders of splits, and in such ones there."""
    found, level = [], [""]
    for _ in range(3):
        below = []
        for folder in level:
            folders, files = tree.listing(folder)
            found += [join(folder, name) for name in files if name.lower().endswith(ENDINGS)]
            below += [join(folder, name) for name in folders if name in ("data", "default") or split_of(name)]
        level = below
    return found


def table_tree(suite: SuiteSpec, root: Path, files: Sequence[Path]) -> tuple[SuiteSpec, Tree]:
    """Tables of pictures as a tree of class folders, and the suite with its classes. Beside others, those to train on
    are not looked at unless the suite names them. Raises `UserError`."""
    splits = {file: _split(file, root) for file in sorted(files)}
    kept = [file for file, split in splits.items() if not split.startswith("train") or split in suite.folders]
    tables = [_opened(file) for file in kept or splits]
    names = {table.names for table in tables if table.names}
    if len(names) > 1:
        raise UserError(f"The files in {shown(str(root))} name different classes.", "Pass those of one data set.")
    listed = [Picture(splits[table.file], name or "", label) for table in tables for name, label in _rows(table)]
    return labelled_tree(suite, root, listed, next(iter(names), ()), _TableRows(tables))


def _split(file: Path, root: Path) -> str:
    """That the file's name says, else the folder that it lies in."""
    return split_of(file.stem) or (split_of(file.parent.name) if file.parent != root else "")


class _Table(NamedTuple):
    """One file, and where in it what lies."""

    file: Path
    content: Any
    """Of Arrow the record batches, as they lie on disk; of Parquet what its foot says."""
    image: str
    """The column."""
    path: str
    """The field of it that holds file names; "" for none."""
    bytes_: str
    """The field that holds the bytes; "" where the column itself does."""
    label: str
    names: tuple[str, ...]
    """Of the classes, in the labels' order; empty where the file has none."""
    groups: tuple[int, ...]
    """Rows of each row group, or record batch."""
    group_bytes: tuple[int, ...]


def _opened(file: Path) -> _Table:
    """What a file holds, by its schema alone."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    content: Any
    try:
        if file.suffix.lower() == ".arrow":
            content = _batches(file)
            schema, groups = content[0].schema, [batch.num_rows for batch in content]
            sizes = [batch.nbytes for batch in content]
        else:
            content = pq.read_metadata(file)
            schema = content.schema.to_arrow_schema()
            each = [content.row_group(group) for group in range(content.num_row_groups)]
            groups, sizes = [group.num_rows for group in each], [group.total_byte_size for group in each]
    except (pa.ArrowException, OSError, IndexError) as error:
        first = next(iter(str(error).splitlines()), "")
        raise UserError(f"{shown(str(file))} cannot be read: {first or 'it is empty'}.", "Fetch it again.") from None
    features = _features(schema.metadata or {})
    image = _column(file, schema.names, features, "Image", _IMAGES, "images")
    label = _column(file, schema.names, features, "ClassLabel", _LABELS, "labels")
    path, bytes_ = _fields(file, image, schema.field(image).type)
    kind = schema.field(label).type
    if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise UserError(f"{shown(str(file))}: the column {label!r} holds {kind}, no labels.", _FORM)
    names = tuple(map(str, features.get(label, {}).get("names") or ()))
    return _Table(file, content, image, path, bytes_, label, names, tuple(groups), tuple(sizes))


def _fields(file: Path, image: str, kind: Any) -> tuple[str, str]:
    """The fields of the images' column that hold a path and the bytes."""
    import pyarrow as pa

    binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    fields = {kind.field(number).name for number in range(kind.num_fields)} if pa.types.is_struct(kind) else set()
    if not binary and "bytes" not in fields:
        raise UserError(f"{shown(str(file))}: the column {image!r} holds {kind}, no bytes of image files.", _FORM)
    return "path" if "path" in fields else "", "" if binary else "bytes"


def _features(metadata: Mapping[bytes, bytes]) -> Mapping[str, Any]:
    """What datasets writes of the columns into a file's schema; nothing where it did not write it."""
    try:
        found = json.loads(metadata[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    return {name: what for name, what in found.items() if isinstance(what, dict)} if isinstance(found, dict) else {}


def _column(
    file: Path, columns: Sequence[str], features: Mapping[str, Any], kind: str, usual: Sequence[str], what: str
) -> str:
    said = [name for name in columns if features.get(name, {}).get("_type") == kind]
    named = [name for name in usual if name in (said or columns)]
    if len(said) == 1 or named:
        return said[0] if len(said) == 1 else named[0]
    among = ", ".join(map(shown, said or columns))
    raise UserError(
        f"{shown(str(file))}: which of its columns ({among}) holds the {what} cannot be told.",
        f"{_FORM} Call it {usual[0]!r}.",
    )


def _rows(table: _Table) -> list[tuple[str | None, int | str | None]]:
    """(name, label) of each row. Raises `UserError`."""
    import pyarrow as pa

    try:
        labels = [label for group in _column_of(table, table.label) for label in group.to_pylist()]
        if not table.path:
            return [(None, label) for label in labels]
        paths = [path for group in _column_of(table, table.image, table.path) for path in group.to_pylist()]
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{shown(str(table.file))} is damaged: {error}.", "Fetch it again.") from None
    return list(zip(paths, labels, strict=True))


def _column_of(table: _Table, column: str, field: str = "") -> Iterator[Any]:
    for group in range(len(table.groups)):
        yield _group(table, group, column, field)


def _batches(file: Path) -> list[Any]:
    """The record batches of an Arrow file, in either of its two forms."""
    import pyarrow as pa

    try:
        with pa.memory_map(str(file)) as source:
            return list(pa.ipc.open_stream(source))
    except pa.ArrowInvalid:
        with pa.memory_map(str(file)) as source:
            reader = pa.ipc.open_file(source)
            return [reader.get_batch(number) for number in range(reader.num_record_batches)]


def _group(table: _Table, group: int, column: str, field: str) -> Any:
    """A column of a row group, or a field of it, as one array."""
    import pyarrow.parquet as pq

    if isinstance(table.content, list):
        values = table.content[group].column(column)
    else:
        file = pq.ParquetFile(table.file, metadata=table.content, memory_map=True)
        wanted = f"{column}.{field}" if field else column
        values = file.read_row_group(group, columns=[wanted], use_threads=False).column(column).combine_chunks()
    return values.field(field) if field else values


class _TableRows:
    """The rows of several tables, one after the other. A `Pictures`."""

    def __init__(self, tables: Sequence[_Table]) -> None:
        self._tables = tables
        self._places = [
            (number, group, row)
            for number, table in enumerate(tables)
            for group, count in enumerate(table.groups)
            for row in range(count)
        ]
        largest = max((size for table in tables for size in table.group_bytes), default=1)
        self._group = lru_cache(maxsize=max(1, _KEPT // max(1, largest)))(self._read_group)

    def _read_group(self, number: int, group: int) -> Any:
        table = self._tables[number]
        return _group(table, group, table.image, table.bytes_)

    def size(self, number: int) -> int:
        """Bytes of the whole row group: what a single image takes is known only by reading it."""
        table, group, _ = self._places[number]
        return self._tables[table].group_bytes[group]

    def read(self, number: int) -> bytes:
        import pyarrow as pa

        table, group, row = self._places[number]
        try:
            value = self._group(table, group)[row].as_py()
        except pa.ArrowException as error:
            raise OSError(f"damaged: {error}") from None
        if value is None:
            raise OSError("the row holds no image")
        return bytes(value)

    def raw(self, number: int) -> None:
        return None

    def where(self, number: int) -> str:
        table, group, row = self._places[number]
        before = sum(self._tables[table].groups[:group])
        return shown(f"{self._tables[table].file}: row {before + row:,}")
