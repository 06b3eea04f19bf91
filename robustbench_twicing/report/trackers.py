"""Trackers of experiments: the figures of a page with the ends of their intervals, what was run, and the page as HTML.

Each is logged to by its own library, which is asked for only when it is named. Where it keeps things, and as whom, is
what its own variables of the environment say (`MLFLOW_TRACKING_URI`, `WANDB_MODE` …).
"""

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from robustbench_twicing.errors import UserError, unknown_name
from robustbench_twicing.report.formats import html, markdown
from robustbench_twicing.report.numbers import is_missing
from robustbench_twicing.report.page import Page, Row
from robustbench_twicing.results.run import Run

PROJECT = "twicing-bench"
"""What mlflow's experiment and wandb's project are called unless the user says otherwise."""
TENSORBOARD = Path("results") / "tensorboard"

_AT_ONCE = 1000
"""Metrics that mlflow takes in one call."""
_LONGEST = 500
"""Letters of a parameter that every version of mlflow takes."""


class Logged(NamedTuple):
    """What a tracker is given of a page."""

    name: str
    page: Page
    parameters: Mapping[str, str]
    figures: Mapping[str, float]
    """Such as `deit/clean/accuracy`, `deit/clean/ci_low`: names that every tracker takes."""

    @property
    def verdict(self) -> str:
        """The page's headline, or what it is about."""
        return self.page.headline.text if self.page.headline else self.page.title


class Tracker(NamedTuple):
    """One tracker."""

    package: str
    """That is imported; the extra has the tracker's name."""
    log: Callable[[Logged, str], str]
    """Logs, to a place of the user's if one is named; says where that was."""


class Asked(NamedTuple):
    """A tracker that a user named, with its package at hand."""

    name: str
    where: str
    tracker: Tracker


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
    logged = Logged("+".join(run.path.name for run in runs), page, parameters(runs), figures(page))
    for one in trackers:
        try:
            yield one.name, one.tracker.log(logged, one.where), True
        except Exception as error:  # noqa: BLE001 - of three libraries and whatever lies behind them
            yield one.name, f"{type(error).__name__}: {' '.join(str(error).split())}", False


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


# --- each tracker ----------------------------------------------------------------------------------------------------


def _mlflow(logged: Logged, where: str) -> str:
    from mlflow import MlflowClient, get_tracking_uri
    from mlflow.entities import Metric, Param, RunTag

    # A server that does not answer is asked twice, and not for minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    client = MlflowClient(tracking_uri=where or None)
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
    known = client.get_experiment_by_name(name)
    experiment = known.experiment_id if known else client.create_experiment(name)
    run = client.create_run(experiment, run_name=logged.name).info.run_id
    now = int(time.time() * 1000)
    metrics = [Metric(key, value, now, 0) for key, value in logged.figures.items()]
    client.log_batch(
        run,
        params=[Param(key, value) for key, value in logged.parameters.items()],
        tags=[RunTag("mlflow.note.content", logged.verdict)],
    )
    for start in range(0, len(metrics), _AT_ONCE):
        client.log_batch(run, metrics=metrics[start : start + _AT_ONCE])
    client.log_text(run, html.write(logged.page).decode(), "report.html")
    client.set_terminated(run)
    return f"{where or get_tracking_uri()}, experiment {name}, run {run}"


def _wandb(logged: Logged, where: str) -> str:
    import wandb

    mode = os.environ.get("WANDB_MODE")
    alone = not mode and not wandb.api.api_key  # it would ask for one, or fail where nobody can answer
    run = wandb.init(
        project=where or os.environ.get("WANDB_PROJECT") or PROJECT,
        name=logged.name,
        notes=logged.verdict,
        config=dict(logged.parameters),
        mode="offline" if alone else None,
        settings=wandb.Settings(silent=True, console="off", disable_git=True, save_code=False),
    )
    code = 1
    try:
        run.log({**logged.figures, "report": wandb.Html(html.write(logged.page).decode(), inject=False)})
        code = 0
    finally:
        run.finish(exit_code=code)
    folder = Path(run.dir).parent
    return f"{folder}; `wandb sync {folder}` sends it" if run.offline else str(run.url)


def _tensorboard(logged: Logged, where: str) -> str:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb
    from tensorboard.plugins.scalar.summary_v2 import scalar_pb
    from tensorboard.plugins.text.summary_v2 import text_pb
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    folder = _new(Path(where or TENSORBOARD), logged.name)
    folder.mkdir(parents=True)
    (folder / "report.html").write_bytes(html.write(logged.page))  # it keeps no files; the Markdown it shows
    summaries: list[Any] = [hparams_pb(dict(logged.parameters))]
    summaries.append(text_pb("report", markdown.write(logged.page).decode()))
    summaries += [scalar_pb(name, value) for name, value in logged.figures.items()]
    writer = EventFileWriter(str(folder))
    for summary in summaries:
        writer.add_event(Event(wall_time=time.time(), step=0, summary=summary))
    writer.close()
    return f"{folder}; `tensorboard --logdir {folder.parent}` shows it"


def _new(parent: Path, name: str) -> Path:
    """A folder that is not there: two event files in one would be drawn as one run."""
    number, folder = 1, parent / name
    while folder.exists():
        number += 1
        folder = parent / f"{name}-{number}"
    return folder


TRACKERS: Mapping[str, Tracker] = {
    "mlflow": Tracker("mlflow", _mlflow),
    "wandb": Tracker("wandb", _wandb),
    "tensorboard": Tracker("tensorboard", _tensorboard),
}
