"""The page of a run: what stands in the row, and what is easily misread."""

from pathlib import Path

import numpy as np

from robustbench_twicing.catalog.suites import suite_definition
from robustbench_twicing.report.run import run_page
from robustbench_twicing.results.run import load_run
from tests.records_builder import records, run_folder
from tests.report.shown import printed


def test_an_attack_on_fewer_samples_than_the_clean_run_says_so_in_its_row(tmp_path: Path) -> None:
    right = np.ones(60, dtype=bool)
    frame = records(
        {("deit", "clean"): right, ("deit", "fgsm-linf-1/255"): right, ("deit", "pgd-linf-1/255"): right[:40]}
    )
    text = printed(run_page(load_run(run_folder(tmp_path / "run", frame))))
    rows = {line.split()[1]: line.split("│")[3].strip() for line in text.splitlines() if line.startswith("│")}
    assert rows == {"clean": "60", "fgsm-linf-1/255": "60", "pgd-linf-1/255": "40 of 60"}


def test_a_higher_mce_beside_a_lower_mean_error_is_explained(tmp_path: Path) -> None:
    spec = suite_definition("digits-c").spec
    outcomes = {}
    for model, errors in {"deit": {"fog": 1}, "deit-tw": {"fog": 3}}.items():
        usual = 10 if model == "deit" else 9
        outcomes[model, "clean"] = np.ones(20, dtype=bool)
        for part in spec.parts():
            wrong = errors.get(part.corruption, usual)
            outcomes[model, f"digits-c:{part}".replace("/", "-")] = np.arange(20) >= wrong
    text = " ".join(printed(run_page(load_run(run_folder(tmp_path / "run", records(outcomes))))).split())
    assert "digits-c: deit-tw has the lower mean error and the higher mCE beside deit. mCE divides" in text
