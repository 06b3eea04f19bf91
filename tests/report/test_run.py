"""The page of a run: what stands in the row, and what is easily misread."""

from pathlib import Path

import numpy as np
import pytest

from robustbench_twicing.catalog.suites import suite_definition
from robustbench_twicing.report.full import full_page
from robustbench_twicing.report.run import run_page
from robustbench_twicing.results.compared import compared_runs
from robustbench_twicing.results.run import Run, load_run
from tests.records_builder import cell, records, run_folder
from tests.report.shown import parsed, printed


def test_an_attack_on_fewer_samples_than_the_clean_run_says_so_in_its_row(tmp_path: Path) -> None:
    right = np.ones(60, dtype=bool)
    frame = records(
        {("deit", "clean"): right, ("deit", "fgsm-linf-1/255"): right, ("deit", "pgd-linf-1/255"): right[:40]}
    )
    text = printed(run_page(load_run(run_folder(tmp_path / "run", frame))))
    rows = {line.split()[1]: line.split("│")[3].strip() for line in text.splitlines() if line.startswith("│")}
    assert rows == {"clean": "60", "fgsm-linf-1/255": "60", "pgd-linf-1/255": "40 of 60"}


@pytest.mark.dear
def test_a_higher_mce_beside_a_lower_mean_error_is_explained(tmp_path: Path) -> None:
    spec = suite_definition("digits-c").spec
    outcomes = {}
    for model, errors in {"deit": {"fog": 1}, "deit-tw": {"fog": 3}}.items():
        usual = 10 if model == "deit" else 9
        outcomes[model, "clean"] = np.ones(20, dtype=bool)
        for part in spec.parts():
            wrong = errors.get(part.corruption, usual)
            outcomes[model, f"digits-c:{part}".replace("/", "-")] = np.arange(20) >= wrong
    run = load_run(run_folder(tmp_path / "run", records(outcomes)))
    for page in (run_page(run), full_page([run], compared_runs([run]))):  # once, also where the models are compared
        text = " ".join(printed(page).split())
        assert text.count("digits-c: deit-tw has the lower mean error and the higher mCE beside deit. mCE divides") == 1


def test_both_rms_calibration_errors_are_columns_with_names(tmp_path: Path) -> None:
    """Published figures are of scripts that leave the most confident bin out."""
    draw = np.random.default_rng(0)
    confidence = draw.uniform(0.2, 1, 500)
    right = draw.uniform(size=500) < confidence**2
    answers = cell("deit", "imagenet-r", right).assign(confidence=confidence)
    run = load_run(run_folder(tmp_path / "run", answers))
    (figures,) = parsed(run_page(run))["suites"]
    ours, theirs = (figures[name] for name in ("rms_calibration_error", "published_rms_calibration_error"))
    order = np.argsort(confidence)
    gaps = [(right[part].mean() - confidence[part].mean()) ** 2 for part in order.reshape(5, 100)]
    assert ours == pytest.approx(np.sqrt(sum(gaps) / 5))
    assert theirs == pytest.approx(np.sqrt(sum(gaps[:4]) / 5))
    shown = {cells[1]: cells[5:7] for cells in _suite_rows(run)}
    assert shown["RMS CE"][0] == f"{ours:.3f}"
    low, high = (figures[f"rms_calibration_error_{end}"] for end in ("low", "high"))
    assert low < ours < high
    assert shown["RMS CE"][1] == f"{low:.3f} - {high:.3f}"
    assert shown["published RMS CE"] == [f"{theirs:.3f}", ""]


def test_figures_of_a_suite_say_how_many_of_its_images_they_are_of(tmp_path: Path) -> None:
    """An mCE of a few photographs must not stand beside published ones as if it were one of all."""
    run = load_run(run_folder(tmp_path / "run", cell("deit", "imagenet-r", np.arange(20) > 5)))
    assert (run.suites["n"].item(), run.suites["images"].item()) == (20, 30_000)
    parts = [cells[4] for cells in _suite_rows(run)]
    assert parts
    assert set(parts) == {"20 of 30,000"}


def _suite_rows(run: Run) -> list[list[str]]:
    """The cells of the table of suites: suite, figure, better, model, images, value, interval."""
    lines = printed(run_page(run), 240).partition("Whole suites")[2].splitlines()
    return [[part.strip() for part in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
