"""`--log`: what was logged is read back through each tracker's own library. Nothing reaches a network."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from robustbench_twicing import api
from robustbench_twicing.catalog.recipes import training_recipe
from robustbench_twicing.cli.app import app
from robustbench_twicing.report import trackers
from robustbench_twicing.report.layouts import report_page
from robustbench_twicing.report.tracked_trainings import TrackedTrainings
from tests.fake_trackers import fake_trackers
from tests.records_builder import records, run_folder, with_flips

BEFORE, AFTER = with_flips(200, right=150, lost=5, gained=40)
ATTACK = "fgsm-linf-1/255"
ACCURACY = {
    "deit/clean": 0.75,
    "deit/fgsm-linf-1of255": 0.75,
    "deit-tw/clean": 0.925,
    "deit-tw/fgsm-linf-1of255": 0.925,
}


@pytest.fixture(autouse=True)
def _run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_MODE", "WANDB_PROJECT", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        monkeypatch.setenv(name, "0")
    outcomes = {(m, t): right for m, right in (("deit", BEFORE), ("deit-tw", AFTER)) for t in ("clean", ATTACK)}
    run_folder(Path("night"), records(outcomes))


def _report(*arguments: str, code: int = 0) -> Any:
    result = CliRunner().invoke(app, ["report", "night", *arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def _matches(figures: dict[str, float], parameters: dict[str, str], page: str) -> None:
    """Figures with both ends, as summary.csv has them; parameters; the page whole."""
    summary = pd.read_csv("night/summary.csv").set_index(["model", "threat"])
    for place, accuracy in ACCURACY.items():
        model, threat = place.replace("1of255", "1/255").split("/", 1)
        row = summary.loc[model, threat]
        assert figures[f"{place}/accuracy"] == accuracy
        for name in ("ci_low", "ci_high", "n", "brier"):
            assert figures[f"{place}/{name}"] == pytest.approx(row[name], rel=1e-6), name
    assert (parameters["seed"], parameters["protocol"], parameters["data"]) == ("0", "standard", "digits")
    assert "softmax, weights weights of deit" in parameters["model deit"]
    assert page.startswith("<!doctype html>")
    assert "deit-tw is better than deit" in page


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_mlflow_has_figures_parameters_and_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", exc_type=ImportError)
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # since 3.11 it asks for a database, that is, SQLAlchemy
    where = Path("ml").absolute().as_uri()
    said = _report("--log", f"mlflow={where}").stderr
    client = MlflowClient(tracking_uri=where)
    found = client.get_experiment_by_name("twicing-bench")
    assert found is not None
    (run,) = client.search_runs([found.experiment_id])
    assert run.info.run_id in said
    assert (run.info.run_name, run.info.status) == ("night", "FINISHED")
    assert run.data.tags["mlflow.note.content"].startswith("deit-tw is better than deit")
    page = Path(client.download_artifacts(run.info.run_id, "report.html")).read_text("utf-8")
    _matches(run.data.metrics, run.data.params, page)


def _logged(content: bytes) -> Iterator[bytes]:
    """Records of a log in LevelDB's form, as wandb's offline files are behind seven bytes of their own: blocks of
    32,768 bytes, pieces of CRC (4), length (2) and type (1: whole, 2: first, 3: middle, 4: last) and content."""
    place, record = 7, b""
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        record = (record if kind in (3, 4) else b"") + content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield record


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_wandb_without_a_key_keeps_them_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")  # it would look for a network
    said = _report("--log", "wandb=robust").stderr
    (file,) = Path("wandb").glob("offline-run-*/run-*.wandb")
    assert f"`wandb sync {file.parent.absolute()}`" in said
    kept = []
    for data in _logged(file.read_bytes()):
        record = Record()
        record.ParseFromString(data)
        kept.append(record)
    run = next(record.run for record in kept if record.WhichOneof("record_type") == "run")
    history = next(record.history for record in kept if record.WhichOneof("record_type") == "history")
    assert (run.project, run.display_name) == ("robust", "night")
    parameters = {item.key: json.loads(item.value_json) for item in run.config.update}
    values = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in history.item}
    page = file.parent / "files" / values["report/path"]
    known = _figures()
    assert set(known) < set(values)
    _matches({key: values[key] for key in known}, parameters, page.read_text("utf-8"))


def _figures() -> dict[str, float]:
    return trackers.figures(report_page([api.load_run("night")]))


def test_tensorboard_has_scalars_hyperparameters_and_the_report() -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
    from tensorboard.util.tensor_util import make_ndarray

    said = _report("--log", "tensorboard=tb", "--log", "tensorboard=tb").stderr
    assert "Logged to tensorboard: tb/night; `tensorboard --logdir tb` shows it" in said
    assert {path.name for path in Path("tb").iterdir()} == {"night", "night-2"}
    (file,) = Path("tb/night").glob("events.*")
    values = [value for event in EventFileLoader(str(file)).Load() for value in event.summary.value]
    by_plugin: dict[str, dict[str, Any]] = {}
    for value in values:
        by_plugin.setdefault(value.metadata.plugin_data.plugin_name, {})[value.tag] = value
    said_of = HParamsPluginData.FromString(values[0].metadata.plugin_data.content).session_start_info.hparams
    parameters = {name: value.string_value for name, value in said_of.items()}
    figures = {tag: float(make_ndarray(value.tensor)) for tag, value in by_plugin["scalars"].items()}
    assert figures == pytest.approx(_figures(), rel=1e-6)
    text = make_ndarray(by_plugin["text"]["report"].tensor).item().decode()
    assert text.startswith("## deit-tw is better than deit")
    rounded = {name: round(value, 3) if name.endswith("accuracy") else value for name, value in figures.items()}
    _matches(rounded, parameters, Path("tb/night/report.html").read_text("utf-8"))


def test_a_training_is_followed_by_epochs_and_ends_with_its_test_accuracy(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, failed = fake_trackers(monkeypatch), list[tuple[str, str]]()
    to = [trackers.asked(name) for name in ("kept=X", "broken")]
    trainings = TrackedTrainings(to, "digits", training_recipe("digits"), lambda *said: failed.append(said))
    for epoch, loss in ((1, 2.0), (2, 1.5)):
        trainings.epoch("deit", 3, epoch, loss, 900.0)
    trainings.ended("deit", 3, 2, right=150, of=200, seconds=9.0, loss=1.5)
    trainings.epoch("deit", 4, 1, 2.5, 900.0)
    trainings.interrupted()
    first, second = kept
    assert failed == [("broken", "ConnectionError: no network")]  # once, not for each training
    assert first.name == "deit-digits-seed3"
    assert (first.parameters["optimizer.name"], first.parameters["recipe"].split()[0]) == ("adamw", "digits")
    assert first.said[1] == {"train/loss": 2.0, "train/images_per_second": 900.0}
    assert first.said[2]["test/accuracy"] == 0.75
    assert first.said[2]["test/ci_low"] < 0.75 < first.said[2]["test/ci_high"]
    assert (first.whole, second.whole) == (True, False)
    assert trainings.logged == [("kept", "there X")]


def test_a_tracker_that_fails_in_the_middle_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, failed = fake_trackers(monkeypatch), list[tuple[str, str]]()
    trainings = TrackedTrainings(
        [trackers.asked("kept")], "digits", training_recipe("digits"), lambda *said: failed.append(said)
    )
    trainings.epoch("deit", 0, 1, -1.0, 900.0)
    trainings.epoch("deit", 0, 2, 1.0, 900.0)
    trainings.ended("deit", 0, 2, 1, 2, 9.0, 1.0)
    assert failed == [("kept", "ConnectionError: gone")]
    assert (kept[0].said, trainings.logged) == ({}, [])


def test_what_a_command_logs_is_its_whole_report_and_a_tracker_that_fails_costs_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = fake_trackers(monkeypatch)
    monkeypatch.setattr(api, "carry_out", lambda *_: api.load_run("night"))
    attack = ["attack", "--model", "deit", "--log", "broken", "--log", "kept=X"]
    result = CliRunner().invoke(app, attack, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "Not logged to broken: ConnectionError: no network" in result.stderr
    assert "Logged to kept: there X" in result.stderr
    (session,) = kept
    assert session.said[0]["deit/clean/n"] == 200
    assert "Where the numbers come from" in {table.title for table in session.pages[0].tables}
    assert session.whole is True
    failed = _report("--log", "broken", "--to", "page.html", code=2)  # where logging is what was asked for
    assert "The report was not logged to broken." in failed.stderr
    assert Path("page.html").exists()


def test_names_that_differ_only_in_what_no_tracker_takes_stay_apart(tmp_path: Path) -> None:
    page = report_page(
        [api.load_run(run_folder(tmp_path / "two", records({("a+b", "clean"): AFTER, ("a=b", "clean"): BEFORE})))]
    )
    found = trackers.figures(page)
    assert (found["a_b/clean/accuracy"], found["a_b/clean_/accuracy"]) == (0.925, 0.75)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("neptune", "Unknown tracker 'neptune'"),
        ("mlflow=", "names no place"),
        ("mlflow=https://me:secret@host/", "has a password"),
        ("wandb", "pip install 'twicing-bench[wandb]'"),
    ],
)
def test_what_cannot_be_logged_to_is_refused_before_anything_is_read(
    said: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", ModuleType("wandb"))  # as of a folder of that name: it has no file
    result = CliRunner().invoke(app, ["report", "nowhere", "--log", said], catch_exceptions=False)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "secret" not in result.stderr


def test_a_package_that_is_not_there_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    assert "pip install 'twicing-bench[tensorboard]'" in _report("--log", "tensorboard", code=2).stderr
