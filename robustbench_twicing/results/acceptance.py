"""Which records count: the one check that finishing, showing, comparing, the gate and a baseline's acceptance share.

A shard counts if its bytes are those that its name says, if it has exactly the columns of a record, one row for each of
its samples, the model, threat, weights, data and seed that the manifest says, answers that follow from prediction and
label, and, under an attack, distances within eps. A cell counts if its samples are those that the manifest names, in
that order. What does not count is named; nothing is changed here. No torch.
"""

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from robustbench_twicing.errors import UserError
from robustbench_twicing.results.manifest import CellEntry, Manifest, Shard, samples_hash
from robustbench_twicing.results.parse import parquet_table
from robustbench_twicing.results.scored_text import SCORED, scored_wrongly
from robustbench_twicing.results.store import SCHEMAS, RunFolder
from robustbench_twicing.spec.plan import EMBEDDED
from robustbench_twicing.spec.threats import Threat

_TIMING = "seconds"
"""The one column in which two computations of the same shard differ."""
_ROUNDING = 1e-9
_AHEAD = 3
"""Cells that are read before they are asked for."""


class Lack(NamedTuple):
    """A shard that the manifest promises and that does not count."""

    shard: Shard
    why: str
    """Such as `is missing` or `has 20 rows for 40 samples`."""
    files: tuple[Path, ...] = ()
    """What lies in its place; to be set aside by who computes it again."""
    disputed: bool = False
    """Several whole files contradict each other, and nothing says which one to believe."""

    def __str__(self) -> str:
        return f"{self.shard.cell}, samples {self.shard.start} to {self.shard.stop - 1}, {self.why}"


class Accepted(NamedTuple):
    """What a run folder holds of what its manifest promises."""

    records: pd.DataFrame
    lacking: tuple[Lack, ...]


@dataclass(frozen=True)
class _Cell:
    """What every record of a cell must say."""

    entry: CellEntry
    constants: Mapping[str, str | int]
    """Columns that hold one value."""
    task: str
    classes: int
    one_label: bool
    """The label alone is right."""
    eight_bit: bool
    """`correct_8bit` is a verdict of its own."""
    distance: str = ""
    """The column that measures the threat's norm; empty for what is no attack."""
    lacks: tuple[str, ...] = ()
    """Columns whose values nobody said."""
    most: float = math.inf
    """The largest distance: eps, and what rounding may add (`engine.measured.rounding`)."""


def accepted_records(folder: RunFolder, manifest: Manifest) -> Accepted:
    """The records of a run that count, in the order of its cells, and what of the promised is not among them."""
    schema = SCHEMAS[manifest.plan.task]
    tables, lacking = [schema.empty_table()], list[Lack]()
    for _, found, lacks in accepted_cells(folder, manifest):
        tables += [table.cast(schema) for table in found]
        lacking += lacks
    return Accepted(pa.concat_tables(tables).to_pandas(), tuple(lacking))


def accepted_cells(folder: RunFolder, manifest: Manifest) -> Iterator[tuple[CellEntry, list[pa.Table], list[Lack]]]:
    """Of each cell in order the tables of its shards that count, texts but ids in a dictionary, and what is lacking."""
    samples, cells = _Samples(), _cells(manifest)
    with ThreadPoolExecutor(2) as pool:  # decoding lets the other thread check
        waiting = deque(pool.submit(_read, folder, cell, samples) for cell in cells[:_AHEAD])
        for number, cell in enumerate(cells, start=_AHEAD):
            found, lacks = waiting.popleft().result()
            if number < len(cells):
                waiting.append(pool.submit(_read, folder, cells[number], samples))
            yield cell.entry, list(found.values()), lacks


def lacking_of(folder: RunFolder, manifest: Manifest) -> list[Lack]:
    """What of the promised does not count."""
    return [lack for _, _, lacks in accepted_cells(folder, manifest) for lack in lacks]


def refuse_lacking(what: str, lacking: Sequence[Lack], hint: str) -> None:
    """Raise `UserError` if anything is lacking, with the first names."""
    if lacking:
        named = "".join(f"\n  {lack}" for lack in lacking[:5])
        more = f"\n  and {len(lacking) - 5} more" if len(lacking) > 5 else ""
        raise UserError(f"{what} lacks {len(lacking)} of its shards:{named}{more}", hint)


def refuse_table(table: pa.Table, columns: Sequence[str], manifest: Manifest, what: str, hint: str) -> None:
    """Raise `UserError` unless `table` holds these columns of the records of all of the manifest's cells, in order."""
    schema = SCHEMAS[manifest.plan.task]
    if why := _other_columns(table, pa.schema([schema.field(name) for name in columns])):
        raise UserError(f"{what} {why}.", hint)
    cells = _cells(manifest)
    promised = sum(cell.entry.samples for cell in cells)
    if table.num_rows != promised:
        raise UserError(f"{what} holds {table.num_rows} records, and its manifest names {promised}.", hint)
    start = 0
    for cell in cells:
        rows = table.slice(start, cell.entry.samples)
        start += cell.entry.samples
        if why := _fault(rows, cell) or _other_samples(rows, cell):
            raise UserError(f"{what}: {cell.entry.model}:{cell.entry.threat} {why}.", hint)


# --- one cell --------------------------------------------------------------------------------------------------------


class _Samples:
    """The samples of the cell before, which are mostly those of the next one, too: then they need no other look."""

    def __init__(self) -> None:
        self.known: tuple[pa.ChunkedArray, pa.ChunkedArray | None, str] | None = None

    def other(self, table: pa.Table, cell: _Cell, whole: bool = True) -> str:
        """As `_other_samples`."""
        labels = table["label"] if "label" in table.column_names else None
        here = table["sample_id"].cast(pa.string()), labels, cell.entry.samples_hash
        if whole and self.known is not None and all(map(_same, here, self.known)):
            return ""
        why = _other_samples(table, cell, whole)
        if whole and not why:
            self.known = here
        return why


def _same(one: Any, other: Any) -> bool:
    return bool(one.equals(other) if isinstance(one, pa.ChunkedArray) else one == other)


def _read(folder: RunFolder, cell: _Cell, samples: _Samples) -> tuple[dict[Shard, pa.Table], list[Lack]]:
    """The shards of a cell that count, in order, and those that do not."""
    found, lacks = dict[Shard, pa.Table](), list[Lack]()
    for shard in cell.entry.shards:
        table = _shard(folder, shard, SCHEMAS[cell.task])
        if isinstance(table, Lack):
            lacks.append(table)
        else:
            found[shard] = table
    if found and _fault(pa.concat_tables(found.values()), cell):  # all at once, which is faster; then one by one
        for shard, table in list(found.items()):
            if why := _fault(table, cell):
                lacks.append(Lack(shard, why, tuple(folder.files_of(shard))))
                del found[shard]
    if found and (why := samples.other(pa.concat_tables(found.values()), cell, whole=not lacks)):
        lacks += [Lack(shard, why, tuple(folder.files_of(shard))) for shard in found]
        found = {}
    return found, sorted(lacks, key=lambda lack: lack.shard.start)


def _shard(folder: RunFolder, shard: Shard, schema: pa.Schema) -> pa.Table | Lack:
    """The table of a shard with the columns and as many rows as it must have."""
    files = tuple(folder.files_of(shard))
    if not files:
        return Lack(shard, "is missing")
    try:
        whole = folder.whole_files(shard)
    except UserError as error:
        return Lack(shard, f"cannot be read: {error.message}")
    if not whole:
        return Lack(shard, "is damaged", files)
    tables = dict[Path, pa.Table]()
    texts = [field.name for field in schema if field.type == pa.string() and field.name != "sample_id"]  # all differ
    for file, content in whole.items():
        try:
            table = parquet_table(content, file, "", texts)
        except UserError as error:
            return Lack(shard, f"is damaged: {error.message}", files)
        if why := _other_columns(table, schema):
            return Lack(shard, why, files)
        if table.num_rows != shard.stop - shard.start:
            return Lack(shard, f"has {table.num_rows} rows for {shard.stop - shard.start} samples", files)
        tables[file] = table
    first, *others = tables.values()
    if any(not _said(table, schema).equals(_said(first, schema)) for table in others):
        named = ", ".join(str(file) for file in tables)
        return Lack(shard, f"has whole files that contradict each other: {named}", disputed=True)
    return first


def _said(table: pa.Table, schema: pa.Schema) -> pa.Table:
    return table.cast(schema).drop_columns(_TIMING)


def _other_columns(table: pa.Table, schema: pa.Schema) -> str:
    """Why a table has not the columns of a schema, each with a value in every row; empty if it has."""
    if table.column_names != schema.names:
        differ = sorted(set(table.column_names) ^ set(schema.names))
        return f"has other columns than it must: {', '.join(differ[:5]) or 'in another order'}"
    for field, column in zip(schema, table.columns, strict=True):
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        kind = pa.string() if kind == pa.large_string() else kind
        if kind != field.type:
            return f"has a column {field.name} of type {column.type}, and not {field.type}"
        if column.null_count and not field.nullable:
            return f"has {column.null_count} row(s) without {field.name}"
    return ""


def _fault(table: pa.Table, cell: _Cell) -> str:
    """What is wrong with some rows of a cell, the first that is found; empty if nothing is."""
    for name, value in cell.constants.items():
        if name in table.column_names and (found := _values(table[name])) != [value]:
            other = next((one for one in found if one != value), None)
            return f"has {name} {other!r}, and not {value!r}" if found else ""
    of_images = cell.task == "images"
    names = [name for name in (_JUDGED if of_images else SCORED) if name in table.column_names]
    rows = table.select(names).to_pandas()
    for why, wrong in _judged_wrongly(rows, cell) if of_images else scored_wrongly(rows):
        if wrong.any():
            first = table["sample_id"][int(wrong.to_numpy().argmax())].as_py()
            return f"has {int(wrong.sum())} record(s) {why}, the first being {first}"
    return ""


def _values(column: pa.ChunkedArray) -> list[Any]:
    """The different values of a column, in order; of one that holds a single value without looking at every row."""
    if pa.types.is_dictionary(column.type) and not column.null_count:
        every = {chunk.dictionary[0].as_py() if len(chunk.dictionary) == 1 else None for chunk in column.chunks}
        if len(every) == 1 and None not in every:
            return list(every)
    if pa.types.is_integer(column.type) and len(column) and not column.null_count:
        ends = pc.min_max(column).as_py()
        if ends["min"] == ends["max"]:
            return [ends["min"]]
    return list(pc.unique(column).to_pylist())


_JUDGED = ("label", "status", "error", "prediction", "correct", "correct_8bit", "brier",
           "linf_distance", "l2_distance")  # fmt: skip


def _judged_wrongly(rows: pd.DataFrame, cell: _Cell) -> list[tuple[str, "pd.Series[bool]"]]:
    """What a record may not say, and which ones do. A column that is not there is not looked at."""
    ok, failed = rows["status"] == "ok", rows["status"] == "failed"
    right, answers = rows["correct"], rows["prediction"].between(0, cell.classes - 1)
    checks = [
        ("with a status that no run gives", ~(ok | failed)),
        ("that failed with an answer", failed & (right | (rows["prediction"] != -1))),
        ("whose prediction is no class", ok & ~answers),
        ("whose label is no class", ~rows["label"].between(0, cell.classes - 1)),
    ]
    if cell.one_label:
        hit = rows["prediction"] == rows["label"]
        checks.append(("where correct does not follow from prediction and label", ok & (right != hit)))
    if "error" in rows:
        checks.append(("whose error does not fit the status", ok != (rows["error"] == "")))
    if "correct_8bit" in rows and not cell.eight_bit:
        checks.append(("where correct_8bit is not correct", rows["correct_8bit"] != right))
    if "brier" in rows and "brier" not in cell.lacks:
        checks.append(("whose brier is outside [0, 2]", ok & ~rows["brier"].between(-_ROUNDING, 2 + _ROUNDING)))
    if cell.distance in rows:
        checks.append((f"with {cell.distance} above eps", ok & ~(rows[cell.distance] <= cell.most)))
    return checks


def _other_samples(table: pa.Table, cell: _Cell, whole: bool = True) -> str:
    """Why these are not the samples of the cell, in its order; empty if they are. `whole`: all of them are there."""
    ids = table["sample_id"].cast(pa.string()).to_pylist()
    labels = table["label"].to_pylist() if "label" in table.column_names else [0] * len(ids)  # a text has none
    if len(set(ids)) < len(ids):
        return f"holds {len(ids) - len(set(ids))} sample(s) more than once"
    if whole and samples_hash(ids, labels) != cell.entry.samples_hash:
        return "holds other samples, or other labels, than the manifest says"
    return ""


# --- what a manifest says of a cell ----------------------------------------------------------------------------------


def _cells(manifest: Manifest) -> list[_Cell]:
    return [
        _cell(manifest, entry, cell.threat) for entry, cell in zip(manifest.cells, manifest.plan.cells, strict=True)
    ]


def _cell(manifest: Manifest, entry: CellEntry, threat: Threat) -> _Cell:
    model, data = manifest.models[entry.model], manifest.data[entry.threat]
    constants: dict[str, Any] = {
        "model": entry.model,
        "architecture": model.spec.architecture,
        "attention": model.attention,
        "weights_hash": model.weights_hash,
        "training_recipe": model.training_recipe,
        "training_seed": model.training_seed,
        "data": data.name,
        "data_fingerprint": data.fingerprint,
        "recipe": entry.recipe,
        **threat.columns(),
        "protocol_hash": entry.threat_hash,
        "seed": manifest.plan.seed,
        "precision": threat.precision if threat.kind == "attack" else "float32",
        "tokenizer": model.prepared_as,
    }
    if manifest.plan.task == "text":
        return _Cell(entry, constants, "text", data.classes, one_label=False, eight_bit=False)
    labelled_by = threat.suite if threat.kind == "shift" else manifest.plan.data.name
    if threat.kind == "corruption" and not threat.generated:
        labelled_by = threat.suite
    one_label = labelled_by == EMBEDDED or manifest.suites[labelled_by].spec.labels not in ("real", "mapped")
    if threat.kind != "attack":
        return _Cell(entry, constants, "images", data.classes, one_label, eight_bit=False, lacks=manifest.lacks)
    linf = threat.settings.norm == "Linf"  # of L1 the L2 distance is looked at, which is never larger
    # A value of an image is at most 1, or at most 1 / std after the normalisation.
    largest = 1.0 if threat.rules.space == "pixel" else max(1.0, *(1 / std for std in model.std))
    rounding = 4 * 2.0**-24 * (largest + float(threat.eps)) * (1.0 if linf else np.sqrt(3) * model.image_size)
    return _Cell(
        entry,
        constants,
        "images",
        data.classes,
        one_label,
        threat.eight_bit,
        "linf_distance" if linf else "l2_distance",
        most=float(threat.eps) + 2 * rounding,
    )
