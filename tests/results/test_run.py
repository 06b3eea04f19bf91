"""A run folder explains itself, and is finished only if it holds all that its manifest promises."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from robustbench_twicing import UserError, evaluate, load_run
from robustbench_twicing.catalog.locate import definitions
from robustbench_twicing.cli.app import app
from robustbench_twicing.report.notes import notes, threat_model
from robustbench_twicing.results.baselines import accept
from robustbench_twicing.results.run import load_finished
from robustbench_twicing.results.store import RunFolder
from robustbench_twicing.spec.plan import Cell
from robustbench_twicing.spec.values import content_hash
from tests.records_builder import records, run_folder

SMALL: dict[str, Any] = {"attacks": ["fgsm"], "eps": "4/255", "limit": 20}


# --- it explains itself ----------------------------------------------------------------------------------------------


def test_a_run_with_a_users_suite_reads_the_same_after_its_definition_was_edited_and_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own, shipped = Path("own.toml"), (definitions("corruptions") / "digits-c.toml").read_text()
    own.write_text(shipped.replace('denominator = "deit"', 'denominator = "alexnet"'))
    run = evaluate("deit", suites=["own.toml"], corruptions=["common"], limit=1, out="run")
    assert run.suites["mce"].notna().all()
    assert run.suites["denominator"].tolist() == ["AlexNet"]

    own.write_text(shipped)
    edited = load_run("run")
    with pytest.raises(UserError, match=r"the definition of the suite own\.toml differ"):
        evaluate("deit", suites=["own.toml"], corruptions=["common"], limit=1, out="run")
    own.unlink()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for again in (edited, load_run("../run")):
        pd.testing.assert_frame_equal(again.suites, run.suites)
        pd.testing.assert_frame_equal(again.summary, run.summary)


def test_reading_opens_no_definition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading, comparing and judging runs, with suites: the catalog may be another one by then, or gone."""
    cells = ("clean", "imagenet-a", "imagenet-c:fog-3", "digits-c:fog-3", "fgsm-linf-1/255")
    frame = records({(model, threat): [True] * 30 for model in ("deit", "deit-tw") for threat in cells})
    run_folder(tmp_path / "run", frame)
    accept(load_finished(tmp_path / "run"), tmp_path / "b", who="ada", why="first")

    def opened(kind: str) -> Path:
        raise AssertionError(f"{kind} was opened")

    monkeypatch.setattr("robustbench_twicing.catalog.locate.definitions", opened)
    for place in ("protocols", "suites", "denominators", "plans"):
        monkeypatch.setattr(f"robustbench_twicing.catalog.{place}.definitions", opened, raising=False)
    monkeypatch.chdir(tmp_path)
    assert len(load_run("run").summary) == 10
    for command in ("compare run", "gate run --baseline b --tolerance 0.5", "baseline show b"):
        result = CliRunner().invoke(app, command.split(), catch_exceptions=False)
        assert result.exit_code == 0, result.output


def _rewritten(folder: Path, change: Callable[[Any], object]) -> None:
    """Change run.json, and give the plan the hash that goes with it."""
    file = folder / "run.json"
    content = json.loads(file.read_text())
    change(content)
    content["plan_hash"] = content_hash(content["plan"])
    file.write_text(json.dumps(content))


def test_what_this_installation_does_not_know_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Algorithms and corruptions come from other packages too, and a reader need not have them."""
    frame = records({("deit", threat): [True] * 30 for threat in ("clean", "digits-c:fog-3", "fgsm-linf-1/255")})
    run_folder(tmp_path, frame)

    def foreign(manifest: Any) -> None:
        manifest["plan"]["threats"][2]["settings"] = {"algorithm": "wiggle", "norm": "Linf", "wiggles": 7}
        manifest["suites"]["digits-c"]["spec"]["families"]["weather"].append("hail")

    _rewritten(tmp_path, foreign)
    run = load_finished(tmp_path)
    assert "fgsm wiggles 7" in threat_model(run.manifest)
    assert notes(run)
    before = run.manifest
    RunFolder(tmp_path).write_manifest(before)
    assert load_finished(tmp_path).manifest == before


def test_suites_of_one_name_but_other_classes_are_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    frame = records({("deit", threat): [True] * 30 for threat in ("clean", "imagenet-a")})
    for place in ("one", "other"):
        run_folder(Path(place), frame)
    accept(load_finished("one"), Path("b"), who="ada", why="first")

    def edited(manifest: Any) -> None:
        manifest["suites"]["imagenet-a"]["spec"]["classes"] = ["n01498041"]

    _rewritten(Path("other"), edited)
    for command in (["compare", "one", "other"], ["gate", "other", "--baseline", "b"]):
        result = CliRunner().invoke(app, command, catch_exceptions=False)
        assert result.exit_code == 2
        assert "not judged alike: the classes or labels of the suite 'imagenet-a'" in result.output


# --- it is whole -----------------------------------------------------------------------------------------------------


class _Spoiler:
    """Follows a run, and does something as soon as the first cell is finished."""

    def __init__(self, spoil: Callable[[], object]) -> None:
        self._spoil = [spoil]

    def advance(self, cell: Cell, evaluations: int) -> None:
        pass

    def say(self, remark: str) -> None:
        pass

    def finish(self, cell: Cell) -> None:
        while self._spoil:
            self._spoil.pop()()


@pytest.mark.parametrize("harm", ["deleted", "cut"])
def test_a_run_whose_shards_were_harmed_while_it_ran_is_not_finished(tmp_path: Path, harm: str) -> None:
    def spoil() -> None:
        (shard,) = tmp_path.glob("run/records/deit.clean.*/*.parquet")
        shard.unlink() if harm == "deleted" else shard.write_bytes(shard.read_bytes()[:-9])

    with pytest.raises(UserError, match=r"lacks 1 of its shards:\n  deit\.clean\..*, samples 0 to 19, is ") as refused:
        evaluate("deit", **SMALL, out=tmp_path / "run", begin=lambda to_do: _Spoiler(spoil))
    assert "same command" in refused.value.hint
    assert load_run(tmp_path / "run").manifest.status == "running"
    with pytest.raises(UserError, match="is not finished"):
        load_finished(tmp_path / "run")
    run = evaluate("deit", **SMALL, out=tmp_path / "run")
    assert (run.manifest.status, run.summary["n"].tolist(), run.lacking) == ("finished", [20, 20], ())


def _altered(folder: RunFolder, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """Give the last shard other records, whole and with the right checksum."""
    *_, shard = folder.manifest().shards
    ((file, _),) = folder.whole_files(shard).items()
    rows = pd.read_parquet(file)
    file.unlink()
    folder.write_shard(shard, change(rows))


def test_the_runs_own_command_computes_again_what_does_not_count(tmp_path: Path) -> None:
    first = evaluate("deit", **SMALL, out=tmp_path)
    folder = RunFolder(tmp_path)
    _altered(folder, lambda rows: rows.iloc[:10])
    again = evaluate("deit", **SMALL, out=tmp_path)
    assert "has 10 rows for 20 samples and is computed again; the old file is" in again.remarks[0]
    pd.testing.assert_frame_equal(again.records.drop(columns="seconds"), first.records.drop(columns="seconds"))
    assert len(folder.damaged()) == 1


def test_what_a_file_decided_is_said_at_the_head_of_every_page(tmp_path: Path) -> None:
    said = "deit: its weights, hf-hub:somebody/weights, are named by /work/twicing-bench.toml."
    frame = records({("deit", "clean"): [True] * 20})
    page = CliRunner().invoke(app, ["report", str(run_folder(tmp_path, frame, decided=[said]))]).output
    assert " ".join(said.split()) in " ".join(page.split())
    assert page.index("deit: its weights") < page.index("Accuracy on")


def test_contradicting_files_are_the_users_to_remove(tmp_path: Path) -> None:
    evaluate("deit", **SMALL, out=tmp_path)
    folder = RunFolder(tmp_path)
    *_, shard = folder.manifest().shards
    (file,) = folder.whole_files(shard)
    rows = pd.read_parquet(file)
    folder.write_shard(shard, rows.assign(linf_distance=0.0))
    with pytest.raises(UserError, match="contradict each other") as refused:
        evaluate("deit", **SMALL, out=tmp_path)
    assert all(str(one) in refused.value.message for one in folder.files_of(shard))


def test_no_command_judges_records_that_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    frame = records({(model, "clean"): [True] * 40 for model in ("deit", "deit-tw")})
    run_folder(Path("results/runs/night"), frame)
    accept(load_finished("results/runs/night"), Path("b"), who="ada", why="first")
    _altered(RunFolder(Path("results/runs/night")), lambda rows: rows.assign(correct=False))
    before = sorted(Path("results").rglob("*"))
    for command in (["compare"], ["gate", "--baseline", "b"], ["baseline", "accept", "--to", "c", "--why", "x"]):
        result = CliRunner().invoke(app, [*command, "results/runs/night"], catch_exceptions=False)
        assert result.exit_code == 2
        assert "correct does not follow from prediction and label" in " ".join(result.output.split())
    assert "Left out" in CliRunner().invoke(app, ["history", "--rebuild"]).output
    assert sorted(Path("results").rglob("*")) == sorted([*before, Path("results/history.sqlite")])


def test_records_are_read_when_they_are_asked_for_from_wherever_and_never_those_of_a_folder_that_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_folder(tmp_path / "run", records({("deit", "clean"): [True, False]}))
    monkeypatch.chdir(tmp_path)
    runs = [load_run("run"), load_run("run")]
    monkeypatch.chdir("/")
    assert len(runs[0].records) == 2
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(UserError, match="not what it was"):
        runs[1].records  # noqa: B018
