"""What a tracker of experiments is given of a page: its figures with the ends of their intervals, what was run, and the
page itself."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from typing import NamedTuple

from robustbench_twicing.errors import UserError, unknown_name
from robustbench_twicing.report.numbers import is_missing
from robustbench_twicing.report.page import Page, Row
from robustbench_twicing.report.tracker_sessions import TRACKERS, Session, Tracker
from robustbench_twicing.results.run import Run

_LONGEST = 500
"""Letters of a parameter that every version of mlflow takes."""


class Asked(NamedTuple):
    """A tracker that a user named, with its package at hand."""

    name: str
    where: str
    tracker: Tracker

    def begin(self, name: str, parameters: Mapping[str, str]) -> Session:
        """A run of that name in the tracker. Raises whatever its library raises."""
        return self.tracker.begin(name, parameters, self.where)


def asked(text: str) -> Asked:
    """What is meant by `mlflow` or `tensorboard=DIR`. Raises `UserError` now rather than after the work."""
    name, sign, where = text.partition("=")
    if name not in TRACKERS:
        raise unknown_name("tracker", name, TRACKERS)
    if sign and not where:
        raise UserError(f"--log {text} names no place.", f"Write {name}, or {name}=WHERE.")
    if re.match(r"[^/]*://[^/]*@", where) or "?" in where:
        raise UserError(
            f"The place of --log {name} has a password or a signature in it, and a run keeps its command.",
            "Write it without: its own library finds credentials in the environment.",
        )
    tracker = TRACKERS[name]
    needed = UserError(f"--log {name} needs {tracker.package}.", f"pip install 'twicing-bench[{name}]'")
    try:
        found = import_module(tracker.package)
    except ImportError as error:
        if error.name == tracker.package:
            raise needed from None
        raise UserError(f"{tracker.package} cannot be imported: {error}.", needed.hint) from None
    if getattr(found, "__file__", None) is None:  # a folder of this name, such as the one that wandb itself makes
        raise needed
    return Asked(name, where, tracker)


def log(trackers: Sequence[Asked], page: Page, runs: Sequence[Run]) -> Iterator[tuple[str, str, bool]]:
    """Of each tracker its name, where the page was logged to or why it was not, and whether it was.

    Nothing that a tracker does ends the program: the run lies on the disk.
    """
    name, about, numbers = "+".join(run.path.name for run in runs), parameters(runs), figures(page)
    for one in trackers:
        session = None
        try:
            session = one.begin(name, about)
            session.figures(numbers)
            session.page(page)
            session.end()
        except Exception as error:  # noqa: BLE001 - of three libraries and whatever lies behind them
            if session is not None:
                with suppress(Exception):
                    session.end(whole=False)
            yield one.name, why(error), False
        else:
            yield one.name, session.where, True


def why(error: Exception) -> str:
    """What a tracker's library raised, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


# --- what is logged --------------------------------------------------------------------------------------------------


def figures(page: Page) -> dict[str, float]:
    """Every number of the page's sheet, under the model, the threat or suite, and the figure's name."""
    found: dict[str, float] = {}
    called: dict[tuple[str, ...], str] = {}
    rows, names = page.sheet or ((), ())
    for row in rows:
        about = _place(row)
        if about not in called:
            name = "/".join(map(_plain, about))
            while name in called.values():  # of two names that differ only in what no tracker takes
                name += "_"
            called[about] = name
        for key, value in row.items():
            if key not in names and isinstance(value, (int, float)) and not is_missing(value):
                found[f"{called[about]}/{_plain(key)}"] = float(value)
    return found


def _place(row: Row) -> tuple[str, ...]:
    """Model, threat or suite, and of a text the choice of targets."""
    parts = (row.get("model"), row.get("threat") or row.get("suite"), row.get("targets"))
    return tuple(str(part) for part in parts if isinstance(part, str) and part)


def _plain(name: str) -> str:
    """A name of letters that every tracker takes, without a slash."""
    return re.sub(r"[^A-Za-z0-9_. -]", "_", name.replace("/", "of")).strip(". ") or "_"


def parameters(runs: Sequence[Run]) -> dict[str, str]:
    """What was run; of several runs under the name of each."""
    found: dict[str, str] = {}
    for run in runs:
        before = f"{_plain(run.path.name)}/" if len(runs) > 1 else ""
        for name, value in _parameters(run):
            found[f"{before}{_plain(name)}"] = value if len(value) <= _LONGEST else f"{value[: _LONGEST - 2]} …"
    return found


def _parameters(run: Run) -> Iterator[tuple[str, str]]:
    manifest = run.manifest
    protocols = dict.fromkeys(threat.protocol for threat in manifest.attacks)
    yield "run", run.path.name
    yield "plan", f"{manifest.name} {manifest.plan_hash}".strip()
    yield "data", manifest.plan.data.name
    yield "seed", str(manifest.plan.seed)
    yield "protocol", ", ".join(protocols) or "none"
    yield "suites", ", ".join(manifest.suites) or "none"
    yield "threats", str(len(manifest.plan.threats))
    yield "device", manifest.device.type
    yield "versions", ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    for name, model in manifest.models.items():
        yield f"model {name}", f"{model.spec.architecture}, {model.attention}, weights {model.weights_hash}"
