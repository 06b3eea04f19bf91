"""The runs in a folder such as results/runs, by when they began. No torch."""

from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from robustbench_twicing.errors import UserError
from robustbench_twicing.results.manifest import Manifest
from robustbench_twicing.results.store import RUNS, RunFolder


class Begun(NamedTuple):
    """A run that was begun; its records are not looked at."""

    path: Path
    manifest: Manifest


def begun(runs: Path = RUNS) -> list[Begun]:
    """Every run in `runs`, the newest first, by the clock of its manifest. What cannot be read is passed over."""
    found = []
    for path in sorted(runs.glob("*")):
        try:
            found.append(Begun(path, RunFolder(path).manifest()))
        except UserError:
            continue
    return sorted(found, key=lambda run: moment(run.manifest), reverse=True)


def moment(manifest: Manifest) -> datetime:
    """When a run began."""
    return datetime.fromisoformat(manifest.started)
