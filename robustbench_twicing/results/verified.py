"""A bundle, read by who does not trust it: every value of its tables is made again from its records. No torch."""

import hashlib
import io
import math
import re
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from zipfile import ZipFile, ZipInfo

import pandas as pd

from robustbench_twicing.catalog.plugged_metrics import add_plugged_metrics
from robustbench_twicing.errors import UserError
from robustbench_twicing.results.acceptance import refuse_lacking
from robustbench_twicing.results.bundle import SUITES, SUMS, claimed_of_suites
from robustbench_twicing.results.elsewhere import whole_file
from robustbench_twicing.results.kept_verified import images_at_odds
from robustbench_twicing.results.manifest import MANIFEST, Manifest, parse_manifest
from robustbench_twicing.results.of_task import tables_of
from robustbench_twicing.results.parse import boundary
from robustbench_twicing.results.run import read_cells
from robustbench_twicing.results.store import IMAGES, RECORDS, SUMMARY, RunFolder, as_csv, explained

_RECORDS = re.compile(rf"{RECORDS}/(?!\.)[^/\\:\0]+/(?!\.)[^/\\:\0]+\.parquet")
_IMAGES = re.compile(rf"{IMAGES}/(?!\.)[^/\\:\0]+/(?!\.)[^/\\:\0]+\.(?:png|npz)")
_INFLATED, _SMALL = 200, 10**6
"""A member of more bytes than `_SMALL` that is so many times larger than what is stored of it is a trap."""
_ROUNDING = 1e-9
"""Of a number, between two machines that add in another order."""
_HINT = "Ask whoever made it for the file again; `bundle RUN --out FILE.zip` makes it."


class Contradiction(NamedTuple):
    """A value that is claimed and does not follow from the records."""

    file: str
    row: str
    column: str
    claimed: str
    follows: str
    """What the records say."""


class Verified(NamedTuple):
    """A bundle, computed again."""

    path: Path
    manifest: Manifest
    records: int
    values: int
    """That were compared."""
    images: int
    """That were kept, and looked at."""
    contradictions: tuple[Contradiction, ...]
    unknown: tuple[str, ...]
    """Columns that this installation has no metric for: nobody can tell here whether they follow."""


def verify_bundle(path: Path) -> Verified:
    """Compute every value of a bundle's tables again, from its records alone.

    Raises `UserError` for what is no whole bundle: cut short, with other checksums, with paths that leave it, of a run
    that is not finished, or with records that do not count (`results.acceptance`).
    """
    with TemporaryDirectory() as place:
        claims = unpack(path, Path(place))
        manifest = parse_manifest(claims[MANIFEST], path / MANIFEST)
        if manifest.status != "finished":
            raise UserError(f"The run in {path} is not finished.", _HINT)
        cells, lacking = read_cells(RunFolder(Path(place)), manifest)
        refuse_lacking(str(path), lacking, _HINT)
        images, at_odds = images_at_odds(Path(place), manifest, cells)
    add_plugged_metrics()
    tables = tables_of(manifest)
    follows = {
        SUMMARY: (tables.summary(cells, manifest), tables.keys),
        SUITES: (claimed_of_suites(tables.suites(cells, manifest)), ("model", "suite")),
    }
    values, unknown = 0, list[str]()
    wrong = [Contradiction(*one) for one in at_odds]
    for name, (table, keys) in follows.items():
        mine = _texts(as_csv(table), path / name)
        theirs = _texts(claims[name], path / name)
        unknown += [f"{column} of {name}" for column in theirs if column not in mine]
        known = [column for column in theirs if column in mine]
        if missing := [key for key in keys if key not in known]:
            raise UserError(f"{path}: {name} has no column {missing[0]}.", _HINT)
        values += theirs[known].size
        wrong += _contradictions(name, theirs[known], mine, keys)
    return Verified(path, manifest, sum(map(len, cells.values())), values, images, tuple(wrong), tuple(unknown))


def _contradictions(name: str, theirs: pd.DataFrame, mine: pd.DataFrame, keys: Sequence[str]) -> list[Contradiction]:
    """What one table claims and the records do not say; also rows that only one of the two has."""
    sides = [{_row(row, keys): row for row in table.to_dict("records")} for table in (theirs, mine)]
    claimed, follows = sides
    found = [Contradiction(name, row, "", "no such row", "one") for row in follows if row not in claimed]
    found += [Contradiction(name, row, "", "a row", "none") for row in claimed if row not in follows]
    if len(claimed) < len(theirs):
        found.append(Contradiction(name, "", "", f"{len(theirs)} rows", f"{len(claimed)} different ones"))
    for row in claimed.keys() & follows.keys():
        pairs = {str(column): (claimed[row][column], follows[row][column]) for column in theirs}
        found += [Contradiction(name, row, column, *pair) for column, pair in pairs.items() if not _same(*pair)]
    return sorted(found)


def _row(row: Mapping[Hashable, str], keys: Sequence[str]) -> str:
    return ", ".join(row[key] for key in keys)


def _same(claimed: str, follows: str) -> bool:
    if claimed == follows:
        return True
    try:
        return math.isclose(float(claimed), float(follows), rel_tol=_ROUNDING, abs_tol=_ROUNDING)
    except ValueError:
        return False


def _texts(content: bytes, file: Path) -> pd.DataFrame:
    """A table as it is written; raises `UserError` for what is none."""
    with boundary(file, _HINT):
        return pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)


# --- the archive -----------------------------------------------------------------------------------------------------


def unpack(path: Path, folder: Path) -> dict[str, bytes]:
    """Put the run of a bundle into an empty folder; returns what is no record, by name. Raises `UserError`.

    Nothing is written but members with a checksum, of names that a bundle has.
    """
    if not path.is_file():
        raise UserError(f"There is no file {path}.", "Name the file that `bundle RUN --out FILE.zip` wrote.")
    others = {}
    with boundary(path, _HINT), ZipFile(whole_file(path)) as archive:
        members = _members(path, archive)
        sums = _sums(path, archive.read(members.pop(SUMS)))
        if differ := sorted(sums.keys() ^ members.keys()):
            raise UserError(f"{path} is not whole: {differ[0]} has a checksum or a file, and not both.", _HINT)
        for name, member in members.items():
            content = archive.read(member)
            if hashlib.sha256(content).hexdigest() != sums[name]:
                raise UserError(f"{path} was altered: {name} has another checksum than {SUMS} says.", _HINT)
            in_a_cell = name.startswith((f"{RECORDS}/", f"{IMAGES}/"))
            if not in_a_cell:
                others[name] = content
            if in_a_cell or name == MANIFEST:
                with explained(folder):
                    (folder / name).parent.mkdir(parents=True, exist_ok=True)
                    (folder / name).write_bytes(content)
    return others


def _members(path: Path, archive: ZipFile) -> dict[str, ZipInfo]:
    """By name. Raises `UserError` for a name that no bundle has, that stands twice, or that is missing."""
    wanted = (MANIFEST, SUMMARY, SUITES, SUMS)
    found: dict[str, ZipInfo] = {}
    for member in archive.infolist():
        name = member.filename
        if name not in wanted and not _RECORDS.fullmatch(name) and not _IMAGES.fullmatch(name):
            raise UserError(f"{path} holds {name!r}, which no bundle has. Nothing was unpacked.", _HINT)
        if name in found:
            raise UserError(f"{path} holds {name} twice.", _HINT)
        if member.file_size > _SMALL and member.file_size > _INFLATED * member.compress_size:
            raise UserError(f"{path}: {name} would be {member.file_size} bytes. Nothing was unpacked.", _HINT)
        found[name] = member
    if missing := [name for name in wanted if name not in found]:
        raise UserError(f"{path} is no bundle: it has no {missing[0]}.", _HINT)
    return found


def _sums(path: Path, content: bytes) -> dict[str, str]:
    lines = [line.partition("  ") for line in content.decode().splitlines()]
    if any(not re.fullmatch("[0-9a-f]{64}", digest) or not name for digest, _, name in lines):
        raise UserError(f"{path}: {SUMS} is no list of checksums.", _HINT)
    return {name: digest for digest, _, name in lines}
