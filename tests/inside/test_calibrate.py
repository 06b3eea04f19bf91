"""Temperature scaling and scores for outliers, beside other libraries' computations of the same definitions."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from sklearn.covariance import EmpiricalCovariance
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize
from torch import nn
from typer.testing import CliRunner

from robustbench_twicing.catalog.suites import class_list
from robustbench_twicing.cli.app import app
from robustbench_twicing.errors import UserError
from robustbench_twicing.inside.calibrate import Said, answers, calibrated, halves, told_apart
from robustbench_twicing.metrics.outliers import Known, knn, scores, temperature, vim
from tests.imagenet_trees import build_tree

RNG = np.random.default_rng(0)
WEIGHT, BIAS = RNG.normal(size=(5, 24)), RNG.normal(size=5)
FEATURES, OTHERS = RNG.normal(size=(200, 24)), 1.5 * RNG.normal(size=(90, 24)) + 0.3
LOGITS, OTHER_LOGITS = FEATURES @ WEIGHT.T + BIAS, OTHERS @ WEIGHT.T + BIAS
LABELS = (LOGITS + 3 * RNG.normal(size=LOGITS.shape)).argmax(1)
KNOWN = Known(LOGITS, FEATURES, WEIGHT, BIAS)


def test_scores_of_logits_are_torchs() -> None:
    found = scores(OTHER_LOGITS, None, None)
    logits = torch.tensor(OTHER_LOGITS)
    np.testing.assert_allclose(found["MSP"], -logits.softmax(1).amax(1), rtol=1e-12)
    np.testing.assert_allclose(found["max-logit"], -logits.amax(1))
    np.testing.assert_allclose(found["energy"], -logits.logsumexp(1), rtol=1e-12)


@pytest.mark.parametrize("neighbours", [1, 50, 500])
def test_knn_is_the_squared_distance_to_the_kth_neighbour_that_scikit_learn_finds(neighbours: int) -> None:
    search = NearestNeighbors(n_neighbors=min(neighbours, 200)).fit(normalize(FEATURES))
    distance = search.kneighbors(normalize(OTHERS))[0][:, -1]
    np.testing.assert_allclose(knn(OTHERS, FEATURES, neighbours), distance**2, atol=1e-8)


def test_vim_is_what_its_paper_says_with_scikit_learns_covariance() -> None:
    origin = -np.linalg.pinv(WEIGHT) @ BIAS
    covariance = EmpiricalCovariance(assume_centered=True).fit(FEATURES - origin).covariance_
    values, vectors = np.linalg.eig(covariance)
    rest = vectors[:, np.argsort(-values)[12:]]
    alpha = LOGITS.max(1).mean() / np.linalg.norm((FEATURES - origin) @ rest, axis=1).mean()
    expected = alpha * np.linalg.norm((OTHERS - origin) @ rest, axis=1) - np.log(np.exp(OTHER_LOGITS).sum(1))
    np.testing.assert_allclose(vim(OTHER_LOGITS, OTHERS, KNOWN), expected, rtol=1e-9)


@pytest.mark.parametrize("scale", [0.1, 1.0, 8.0])
def test_the_temperature_is_where_the_cross_entropy_is_least(scale: float) -> None:
    logits = scale * LOGITS

    def nll(log_temperature: float) -> float:
        shares: np.ndarray = torch.tensor(logits / np.exp(log_temperature)).softmax(1).numpy()
        return float(log_loss(LABELS, shares, labels=list(range(5))))

    least = minimize_scalar(nll, bounds=(-4, 4), method="bounded", options={"xatol": 1e-8})
    assert temperature(logits, LABELS) == pytest.approx(np.exp(least.x), rel=1e-5)


def test_where_every_answer_is_right_the_temperature_is_the_lowest() -> None:
    assert temperature(LOGITS, LOGITS.argmax(1)) == pytest.approx(0.01)


def test_figures_before_and_after_are_of_the_half_that_nothing_was_fitted_on() -> None:
    said = Said(8 * LOGITS, LABELS, FEATURES)
    fit, judged = (said.take(rows) for rows in halves(200, 3))
    assert not set(map(tuple, fit.logits)) & set(map(tuple, judged.logits))
    found = calibrated("m", "clean", fit, judged)
    shares = torch.tensor(judged.logits / found.temperature).softmax(1).numpy()
    after = found.figures["mean_loss", True]
    assert after.value == pytest.approx(log_loss(judged.labels, shares, labels=list(range(5))))
    assert after.low is not None
    assert after.low < after.value
    for name in ("mean_loss", "brier", "ece"):
        assert found.figures[name, True].value < found.figures[name, False].value, name


def test_told_apart_gives_scikit_learns_areas_for_every_score() -> None:
    said, others = Said(LOGITS, LABELS, FEATURES), Said(OTHER_LOGITS, np.full(90, -1), OTHERS)
    fit, judged = (said.take(rows) for rows in halves(200, 0))
    layer = nn.Linear(24, 5).double()
    layer.weight.data, layer.bias.data = torch.tensor(WEIGHT), torch.tensor(BIAS)
    found = told_apart("m", "o", fit, judged, others, layer)
    assert [one.score for one in found] == ["MSP", "max-logit", "energy", "kNN", "ViM"]
    known = Known(fit.logits, fit.features, WEIGHT, BIAS)
    truth = np.repeat([0, 1], [100, 90])
    for one in found:
        both = [scores(part.logits, part.features, known)[one.score] for part in (judged, others)]
        assert one.figures["auroc"].value == pytest.approx(roc_auc_score(truth, np.concatenate(both)))
        assert one.figures["aupr"].value == pytest.approx(average_precision_score(truth, np.concatenate(both)))
        assert one.figures["auroc"].low is not None


def test_logits_that_are_not_finite_and_too_few_images_are_refused() -> None:
    batch = (torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(UserError, match="not finite"):
        answers(lambda images: images / 0, None, iter([batch]), None)
    with pytest.raises(UserError, match="no image"):
        answers(lambda images: images, None, iter([]), None)
    with pytest.raises(UserError, match="3 clean images"):
        halves(3, 0)


def _said(*words: Any) -> dict[str, Any]:
    ended = CliRunner().invoke(app, ["calibrate", *map(str, words), "--json", "-q"], catch_exceptions=False)
    assert ended.exit_code == 0, ended.output
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def test_calibrate_scales_both_models_and_tells_corrupted_digits(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["-m", "deit", "-m", "deit-tw", "--limit", 40, "-s", "digits-c", "-c", "contrast", "--severity", 5]
    found = _said(*words, "--to", "page.md")
    assert [(one["model"], one["threat"], one["fitted"]) for one in found["models"]] == [
        ("deit", "clean", 20),
        ("deit-tw", "clean", 20),
    ]
    assert all(one["after"]["mean_loss"][0] < one["before"]["mean_loss"][0] for one in found["models"])
    assert [row["score"] for row in found["told"]] == 2 * ["MSP", "max-logit", "energy", "kNN", "ViM"]
    assert all(0 <= row["figures"][name][0] <= 1 for row in found["told"] for name in ("auroc", "aupr", "fpr95"))
    assert "Temperature scaling" in (tmp_path / "page.md").read_text("utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["page.md"]


def test_outliers_are_told_from_clean_images_of_the_classes_that_they_are_taken_for(tmp_path: Path) -> None:
    build_tree(tmp_path / "o", "imagenet-o", per_class=2)
    build_tree(tmp_path / "val", "imagenet", class_list("imagenet-o")[:3], per_class=2)
    places = [f"--data-dir=imagenet-o={tmp_path / 'o'}", f"--data-dir=imagenet={tmp_path / 'val'}"]
    found = _said("-m", "reader=python:tests.imagenet_trees:LabelReader", "-s", "imagenet-o", *places)
    told = found["told"]
    assert [row["score"] for row in told] == ["MSP", "max-logit", "energy"]
    assert {(row["clean"], row["others"]) for row in told} == {(3, 6)}
    assert "no linear last layer" in found["missing"][0]
