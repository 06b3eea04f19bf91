"""Where a run's numbers come from: command, code, packages, device, data."""

import shlex
from collections.abc import Iterator, Sequence

from robustbench_twicing.report.numbers import count
from robustbench_twicing.report.page import Column, Table
from robustbench_twicing.results.manifest import Manifest
from robustbench_twicing.results.run import Run

_COLUMNS = (Column("what", ""), Column("said", "", "prose"))
_OUR_OWN = ("twicing-bench", "__main__.py")


def provenance_table(run: Run, called: str = "") -> Table:
    """Names and values, as the manifest of the run has them; `called` is the run's name among several."""
    rows = tuple({"what": what, "said": said} for what, said in _said(run.manifest) if said)
    title = f"Where the numbers of {called} come from" if called else "Where the numbers come from"
    return Table(f"provenance {called}".strip(), title, _COLUMNS, rows, framed=False)


def command_line(command: Sequence[str]) -> str:
    """As it is typed again, whatever the path was by which Python found us; empty for a run from Python."""
    if not command:
        return ""
    first, *rest = command
    ours = first.replace("\\", "/").rpartition("/")[2] in _OUR_OWN
    return shlex.join(["twicing-bench" if ours else first, *rest])


def _said(manifest: Manifest) -> Iterator[tuple[str, str]]:
    if manifest.origin == "predictions":
        yield from _handed_over(manifest)
        return
    device, git = manifest.device, manifest.git
    yield "command", command_line(manifest.command)
    yield "plan", f"{manifest.name} {manifest.plan_hash}".strip()
    yield "time", " to ".join(moment for moment in (manifest.started, manifest.finished) if moment)
    yield "code", ", ".join(dict.fromkeys(maker.code for maker in manifest.made_by))
    if git:
        yield "commit", git.commit + (", with changes that were not committed" if git.changed else "")
    yield "packages", ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    known = [device.name, f"CUDA {device.cuda}" if device.cuda else "", device.products]
    yield "device", ", ".join([device.type, *filter(None, known)])
    yield "platform", manifest.platform
    yield from _data(manifest)


def _handed_over(manifest: Manifest) -> Iterator[tuple[str, str]]:
    yield "predictions", f"of {manifest.device.name}, handed over"
    yield "time", manifest.started
    yield "read by", ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    yield from _data(manifest)


def _data(manifest: Manifest) -> Iterator[tuple[str, str]]:
    sets = {(data.name, data.fingerprint): data.samples for data in manifest.data.values()}
    for (name, fingerprint), samples in sets.items():
        yield "data", f"{name} {fingerprint}, {count(samples)} samples"
