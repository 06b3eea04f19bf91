"""Trackers of experiments, each by its own library, which is asked for only when it is named.

Where it keeps things, and as whom, is what its own variables of the environment say (`MLFLOW_TRACKING_URI`,
`WANDB_MODE` …).
"""

import os
import time
from collections.abc import Callable, Mapping
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from robustbench_twicing.report.formats import html, markdown
from robustbench_twicing.report.page import Page

PROJECT = "twicing-bench"
"""What mlflow's experiment and wandb's project are called unless the user says otherwise."""
TENSORBOARD = Path("results") / "tensorboard"

_AT_ONCE = 1000
"""Metrics that mlflow takes in one call."""


@runtime_checkable
class Session(Protocol):
    """One run in a tracker, from its beginning on. Every method raises whatever the library raises."""

    where: str
    """Where it is to be looked for."""

    def figures(self, figures: Mapping[str, float], step: int = 0) -> None:
        """Numbers such as `deit/clean/accuracy`, as of a step."""
        ...

    def page(self, page: Page) -> None:
        """The whole page, to be read there, and its verdict."""
        ...

    def end(self, whole: bool = True) -> None:
        """Nothing follows; not `whole`, if something should have."""
        ...


class Tracker(NamedTuple):
    """One tracker."""

    package: str
    """That is imported; the extra has the tracker's name."""
    begin: Callable[[str, Mapping[str, str], str], Session]
    """A run of a name, with its parameters, at a place of the user's if one is named."""


def verdict(page: Page) -> str:
    """The page's headline, or what it is about."""
    return page.headline.text if page.headline else page.title


class _Mlflow:
    def __init__(self, name: str, parameters: Mapping[str, str], where: str) -> None:
        from mlflow import MlflowClient, get_tracking_uri
        from mlflow.entities import Param

        # A server that does not answer is asked twice, and not for minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
        self._client = MlflowClient(tracking_uri=where or None)
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
        known = self._client.get_experiment_by_name(experiment)
        place = known.experiment_id if known else self._client.create_experiment(experiment)
        self._run = self._client.create_run(place, run_name=name).info.run_id
        self._client.log_batch(self._run, params=[Param(key, value) for key, value in parameters.items()])
        self.where = f"{where or get_tracking_uri()}, experiment {experiment}, run {self._run}"

    def figures(self, figures: Mapping[str, float], step: int = 0) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(key, value, now, step) for key, value in figures.items()]
        for start in range(0, len(metrics), _AT_ONCE):
            self._client.log_batch(self._run, metrics=metrics[start : start + _AT_ONCE])

    def page(self, page: Page) -> None:
        self._client.set_tag(self._run, "mlflow.note.content", verdict(page))
        self._client.log_text(self._run, html.write(page).decode(), "report.html")

    def end(self, whole: bool = True) -> None:
        self._client.set_terminated(self._run, "FINISHED" if whole else "FAILED")


class _Wandb:
    def __init__(self, name: str, parameters: Mapping[str, str], where: str) -> None:
        import wandb

        mode = os.environ.get("WANDB_MODE")
        alone = not mode and not _has_key(wandb)  # it would ask for one, or fail where nobody can answer
        self._run: Any = wandb.init(
            project=where or os.environ.get("WANDB_PROJECT") or PROJECT,
            name=name,
            config=dict(parameters),
            mode="offline" if alone else None,
            settings=wandb.Settings(silent=True, console="off", disable_git=True, save_code=False),
        )
        folder = Path(self._run.dir).parent
        self.where = f"{folder}; `wandb sync {folder}` sends it" if self._run.offline else str(self._run.url)

    def figures(self, figures: Mapping[str, float], step: int = 0) -> None:
        self._run.log(dict(figures), step=step)

    def page(self, page: Page) -> None:
        import wandb

        self._run.notes = verdict(page)
        self._run.log({"report": wandb.Html(html.write(page).decode(), inject=False)}, step=self._run.step)

    def end(self, whole: bool = True) -> None:
        self._run.finish(exit_code=0 if whole else 1)


def _has_key(wandb: Any) -> bool:
    """Whether wandb knows who the user is, without asking him or a network."""
    if "prompt" in signature(wandb.login).parameters:
        return bool(wandb.login(prompt=False, verify=False))
    return bool(wandb.api.api_key)  # of older versions; deprecated since


class _Tensorboard:
    def __init__(self, name: str, parameters: Mapping[str, str], where: str) -> None:
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._folder = _new(Path(where or TENSORBOARD), name)
        self._folder.mkdir(parents=True)
        self._writer = EventFileWriter(str(self._folder))
        self._add(hparams_pb(dict(parameters)))
        self.where = f"{self._folder}; `tensorboard --logdir {self._folder.parent}` shows it"

    def _add(self, summary: Any, step: int = 0) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))

    def figures(self, figures: Mapping[str, float], step: int = 0) -> None:
        from tensorboard.plugins.scalar.summary_v2 import scalar_pb

        for name, value in figures.items():
            self._add(scalar_pb(name, value), step)
        self._writer.flush()

    def page(self, page: Page) -> None:
        from tensorboard.plugins.text.summary_v2 import text_pb

        (self._folder / "report.html").write_bytes(html.write(page))  # it keeps no files; the Markdown it shows
        self._add(text_pb("report", markdown.write(page).decode()))

    def end(self, whole: bool = True) -> None:
        self._writer.close()


def _new(parent: Path, name: str) -> Path:
    """A folder that is not there: two event files in one would be drawn as one run."""
    number, folder = 1, parent / name
    while folder.exists():
        number += 1
        folder = parent / f"{name}-{number}"
    return folder


TRACKERS: Mapping[str, Tracker] = {
    "mlflow": Tracker("mlflow", _Mlflow),
    "wandb": Tracker("wandb", _Wandb),
    "tensorboard": Tracker("tensorboard", _Tensorboard),
}
