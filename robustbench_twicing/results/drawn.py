"""Which records are done again, and what that says of all of them. No torch."""

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pandas as pd

from robustbench_twicing.errors import UserError
from robustbench_twicing.machine.remote import is_remote
from robustbench_twicing.metrics.intervals import most_wrong
from robustbench_twicing.results.acceptance import accepted_records, refuse_lacking
from robustbench_twicing.results.manifest import MANIFEST, Manifest, parse_manifest
from robustbench_twicing.results.store import RunFolder
from robustbench_twicing.results.verified import unpack

LEVEL = 0.95
"""Of the bound."""


class Differs(NamedTuple):
    """A value of a record that came out otherwise."""

    model: str
    threat: str
    sample: str
    column: str
    recorded: str
    computed: str


class Rechecked(NamedTuple):
    """Some records, done again."""

    path: Path
    manifest: Manifest
    records: int
    """In all."""
    checked: int
    """Drawn at random and done again."""
    seed: int
    """Of the drawing."""
    differ: tuple[Differs, ...]
    """Of records that are wrong: no rounding makes this difference."""
    near_ties: tuple[Differs, ...]
    """Of records that rounding alone may make differ."""

    @property
    def wrong(self) -> int:
        """Records that are wrong."""
        return _samples(self.differ)

    @property
    def in_doubt(self) -> int:
        """Records that differ only near a tie."""
        return _samples(self.near_ties)

    @property
    def bound(self) -> float:
        """The largest share of all records that may be wrong (`metrics.intervals.most_wrong`), near ties among them."""
        return most_wrong(self.wrong + self.in_doubt, self.checked, self.records, LEVEL)


def _samples(found: tuple[Differs, ...]) -> int:
    return len({(one.model, one.threat, one.sample) for one in found})


def drawn(records: int, wanted: int, seed: int) -> list[int]:
    """`wanted` different numbers below `records`, all of them if there are no more, each set as likely as any other.

    A shuffle (Fisher and Yates) that stops early, by SHA-256 of seed and step: the same on every machine and version.
    """
    moved: dict[int, int] = {}
    found = []
    for step in range(min(wanted, records)):
        digest = hashlib.sha256(f"{seed}\0{step}".encode()).digest()
        place = step + int.from_bytes(digest, "big") % (records - step)
        found.append(moved.get(place, place))
        moved[place] = moved.get(step, step)
    return sorted(found)


def evidence(path: Path) -> tuple[Manifest, pd.DataFrame]:
    """Manifest and records of a finished run, a folder or a bundle. Raises `UserError` for what is not whole."""
    if not is_remote(path) and path.is_dir():
        return _whole(RunFolder(path), path, RunFolder(path).manifest())
    with TemporaryDirectory() as place:
        claims = unpack(path, Path(place))
        return _whole(RunFolder(Path(place)), path, parse_manifest(claims[MANIFEST], path / MANIFEST))


def _whole(folder: RunFolder, path: Path, manifest: Manifest) -> tuple[Manifest, pd.DataFrame]:
    if manifest.origin == "predictions":
        raise UserError(
            f"{path} holds another tool's predictions: there is nothing here to compute them again with.",
            "Ask whoever made them; `bundle verify` checks that the numbers follow from the predictions.",
        )
    if manifest.status != "finished":
        raise UserError(f"The run in {path} is not finished.", "Only a finished run is evidence.")
    records, lacking = accepted_records(folder, manifest)
    refuse_lacking(str(path), lacking, "Ask whoever made it for the whole of it.")
    return manifest, records
