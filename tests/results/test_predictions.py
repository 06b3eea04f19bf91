"""Another tool's predictions become a run, which says on every page where they came from."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from robustbench_twicing import UserError, api, from_predictions
from robustbench_twicing.cli.app import app
from robustbench_twicing.report.arms import arms_page
from robustbench_twicing.report.baseline import baseline_page
from robustbench_twicing.report.history import history_page
from robustbench_twicing.report.page import Line
from robustbench_twicing.results.baselines import accept, load_baseline
from robustbench_twicing.results.gate import check_run
from robustbench_twicing.results.history import rebuild, series
from robustbench_twicing.spec.policy import Policy

ABOUT = {"data": "theirs", "made_by": "other-tool 3.1"}
SAYS = "came from elsewhere"


def _frame(**columns: Any) -> pd.DataFrame:
    """Two models under two threats: 60 samples of `a`, of which `b` has 50, and under `squeeze` answers fewer."""
    parts = []
    for model, count in (("a", 60), ("b", 50)):
        for threat, wrong in (("clean", 5), ("squeeze", 20 if model == "a" else 40)):
            labels = np.arange(count) % 7
            said = np.where(np.arange(count) < wrong, (labels + 1) % 7, labels)
            ids = [f"photo {number}" for number in range(count)]
            about = {"model": model, "threat": threat, "sample_id": ids, "label": labels, "prediction": said}
            parts.append(pd.DataFrame({**about, "confidence": 0.3 + 0.6 * (said == labels)}))
    return pd.concat(parts, ignore_index=True).assign(**columns)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("predictions") / "run"
    return from_predictions(_frame(), place, threats={"squeeze": "JPEG at quality 5"}, **ABOUT).path


def test_they_are_summed_up_and_compared_on_the_samples_that_models_share(folder: Path) -> None:
    run = api.load_run(folder)
    summary = run.summary.set_index(["model", "threat"])
    assert summary.loc[("a", "squeeze"), ["n", "accuracy"]].tolist() == [60, 40 / 60]
    assert summary.loc[("b", "squeeze"), "drop"] == pytest.approx(-35 / 50)
    unsaid = ["top5_accuracy", "accuracy_8bit", "accuracy_unmasked", "brier", "mean_loss", "max_linf_distance"]
    assert summary[unsaid].isna().all(axis=None)
    assert summary["ece"].notna().all()
    clean, squeeze = api.compare(folder).rows
    assert (clean.outcome.flips.n, squeeze.outcome.flips.lost, squeeze.pairs.candidate_left_out.missing) == (50, 20, 10)
    assert (clean.verdict, squeeze.verdict) == ("no difference found", "worse")


def test_every_page_says_where_they_came_from_and_nothing_is_computed_again(folder: Path, tmp_path: Path) -> None:
    def said(*command: str, code: int = 0) -> str:
        done = CliRunner().invoke(app, list(command), env={"COLUMNS": "200"})
        assert done.exit_code == code, done.output
        return done.output

    html = tmp_path / "page.html"
    said("report", str(folder), "--to", str(html))
    bundle = str(tmp_path / "e.zip")
    said("bundle", str(folder), "--out", bundle)
    pages = [
        html.read_text("utf-8"),
        said("report", str(folder), "--layout", "paper"),
        said("compare", str(folder)),
        said("bundle", "verify", bundle),
    ]
    assert all(SAYS in page for page in pages)
    assert "JPEG at quality 5" in pages[0]
    assert "not checked by us" in pages[0]
    assert "other-tool 3.1" in pages[0]
    assert "another tool's predictions" in said("recheck", bundle, "--sample", "5", code=2)
    run = api.load_run(folder)
    accept(run, tmp_path / "baseline", who="ada", why="first")
    judged = check_run(run, load_baseline(tmp_path / "baseline"), Policy(tolerance=0.2))
    assert (judged.verdict, judged.elsewhere) == ("pass", ("the run", "the baseline"))


def test_arms_the_history_and_a_baseline_say_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ours = _frame()[lambda frame: frame["sample_id"].isin([f"photo {number}" for number in range(50)])]
    seeds = [ours.assign(model=ours["model"] + f"@s{seed}", prediction=_other(ours, seed)) for seed in range(3)]
    run = from_predictions(pd.concat(seeds, ignore_index=True), "results/runs/theirs", **ABOUT)
    found = arms_page(api.compare_arms(run.path, {"a": ["a@*"], "b": ["b@*"]}))
    assert found.facts["elsewhere"] is True
    accept(run, tmp_path / "baseline", who="ada", why="first")
    rebuild()
    for page in (found, baseline_page(load_baseline(tmp_path / "baseline")), history_page(series(ad_hoc=True))):
        assert [SAYS in part.text for part in page.parts if isinstance(part, Line)].count(True) == 1, page.title


def _other(frame: pd.DataFrame, seed: int) -> "pd.Series[int]":
    """The predictions, one of them another class, by seed."""
    return frame["prediction"].where(frame["sample_id"] != f"photo {30 + seed}", (frame["label"] + 1) % 7)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"sample_id": None}, "have no sample_id"),
        ({"sample_id": "one"}, "of a sample that was there before"),
        ({"label": -1}, "a label that is no class"),
        ({"label": lambda frame: frame["label"] + (frame["model"] == "b")}, "another label"),
        ({"prediction": np.nan}, "a prediction that is no class"),
        ({"prediction": 1.5}, "a prediction that is no class"),
        ({"confidence": 1.1}, "a confidence outside of 0 to 1"),
        ({"confidence": np.nan}, "a confidence outside"),
        ({"colour": 1}, "unknown column 'colour'"),
        ({"threat": lambda frame: frame["threat"].replace("squeeze", "imagenet-c")}, "cannot stand for"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_written(columns: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        from_predictions(_frame(**columns), tmp_path / "run", **ABOUT)
    assert not (tmp_path / "run").exists()


def test_missing_columns_few_classes_unused_descriptions_and_full_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no column 'label'"):
        from_predictions(_frame().drop(columns="label"), tmp_path / "run", **ABOUT)
    with pytest.raises(UserError, match="there are 5 classes"):
        from_predictions(_frame(), tmp_path / "run", classes=5, **ABOUT)
    with pytest.raises(UserError, match="'blur'"):
        from_predictions(_frame(), tmp_path / "run", threats={"blur": "?"}, **ABOUT)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "run.json").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        from_predictions(_frame(), tmp_path / "full", **ABOUT)
    assert (tmp_path / "full" / "run.json").read_text() == "mine"
