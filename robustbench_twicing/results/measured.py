"""What `collapse`, `diagnose` and `sweep` measured of each image, as a folder that `compare` reads. No torch.

inside.json        what was measured, with what, on what; written last, so a folder without it was stopped
measured.parquet   a row for each model, threat, place, figure and image
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from robustbench_twicing.errors import UserError
from robustbench_twicing.inside.found import Keep, nobody
from robustbench_twicing.results.parse import json_object, parquet_table, typed
from robustbench_twicing.results.store import explained, is_there, require_writable, unfinished, write_whole
from robustbench_twicing.results.used import DataUsed, Device, Git, ModelUsed, Moment, Said
from robustbench_twicing.spec.values import Frozen

MEASURED, ROWS = "inside.json", "measured.parquet"
_AT_ONCE = 100_000
"""Rows that are held before they are written, so that memory does not grow with the number of images."""
_HINT = "Measure again, into another folder."
_NAMES = ("model", "threat", "place", "figure", "sample_id")
SCHEMA = pa.schema([*(pa.field(name, pa.string(), False) for name in _NAMES), pa.field("value", pa.float64(), False)])


class Measured(Frozen):
    """The manifest."""

    schema_version: Literal[1] = 1
    command: Literal["collapse", "diagnose", "sweep"]
    finished: Moment
    said: tuple[Said, ...] = ()
    """The command line."""
    data: DataUsed
    seed: int
    threats: Mapping[str, str]
    """By id, the hash of what decides it: values of two hashes are not compared."""
    models: Mapping[str, ModelUsed]
    grades: Mapping[str, str] = Field(default_factory=dict)
    """Of `diagnose`, by model."""
    versions: Mapping[str, str]
    device: Device
    git: Git | None = None


@contextmanager
def kept_in(folder: Path | None, manifest: Callable[[], Mapping[str, Any]]) -> Iterator[Keep]:
    """Within, what is told is kept; the manifest, asked for at the end, makes the folder readable. None: nothing is.

    Raises `UserError` if the folder holds something, or cannot be written.
    """
    if folder is None:
        yield nobody
        return
    require_writable(folder)
    if any(folder.iterdir()):
        raise UserError(f"{folder} is not empty.", "Name another folder: measurements are kept once, and never mixed.")
    temporary = unfinished(folder / ROWS)
    held: list[pa.Table] = []
    try:
        with explained(folder), pq.ParquetWriter(temporary, SCHEMA, compression="zstd") as file:

            def flush() -> None:
                if held:
                    file.write_table(pa.concat_tables(held))
                held.clear()

            def keep(model: str, threat: str, place: str, figure: str, ids: Sequence[str], values: np.ndarray) -> None:
                known = ~np.isnan(values)
                names = [pa.repeat(name, int(known.sum())) for name in (model, threat, place, figure)]
                some = [one for one, there in zip(ids, known.tolist(), strict=True) if there]
                held.append(pa.table([*names, some, values[known].astype(float)], schema=SCHEMA))
                if sum(map(len, held)) > _AT_ONCE:
                    flush()

            yield keep
            flush()
        temporary.replace(folder / ROWS)
        write_whole(folder / MEASURED, (Measured.model_validate(manifest()).model_dump_json(indent=2) + "\n").encode())
    finally:
        temporary.unlink(missing_ok=True)


def is_measured(place: str | Path) -> bool:
    """Whether a folder holds measurements."""
    return is_there(Path(place) / MEASURED)


def load_measured(place: str | Path) -> tuple[Measured, pd.DataFrame]:
    """The manifest and the rows. Raises `UserError` for files that are missing or were altered."""
    folder = Path(place)
    content = {}
    for name in (MEASURED, ROWS):
        with explained(folder):
            if not (folder / name).is_file():
                raise UserError(f"{folder} holds no {name}.", _HINT)
            content[name] = (folder / name).read_bytes()
    manifest = typed(Measured, json_object(content[MEASURED], folder / MEASURED, _HINT), folder / MEASURED, _HINT)
    table = parquet_table(content[ROWS], folder / ROWS, _HINT, _NAMES)
    if table.column_names != SCHEMA.names:
        raise UserError(f"{folder / ROWS} has other columns: {', '.join(table.column_names)}.", _HINT)
    return manifest, table.to_pandas()
