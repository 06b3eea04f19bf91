"""The figures over a whole suite: what its definition asks for, and nothing else."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from robustbench_twicing import evaluate

OWN = """title = "t"
source = "s"
layout = "generated"
images = 597
clean = "digits"
index = "digits"
classes = "digits"
severities = [1, 4]
{more}
[families]
air = ["fog", "snow"]
lens = ["defocus_blur"]
[extra_families]
more = ["gaussian_noise"]
"""


def _figures(folder: Path, more: str = "", model: str = "deit") -> tuple[pd.Series, pd.Series]:
    """The figures of a suite of one's own, and the model's errors by (corruption, severity)."""
    (folder / "own.toml").write_text(OWN.format(more=more))
    run = evaluate(model, suites=[str(folder / "own.toml")], limit=30, out=folder / "run")
    corrupted = run.records[run.records["kind"] == "corruption"]
    return run.suites.iloc[0], 1 - corrupted.groupby(["corruption", "severity"])["correct"].mean()


def test_a_users_suite_has_a_mean_error_over_its_own_families_and_severities_and_no_mce(tmp_path: Path) -> None:
    figures, errors = _figures(tmp_path)
    assert figures["mean_error"] == pytest.approx(errors[["fog", "snow", "defocus_blur"]].mean())
    assert np.isnan(figures["mce"])
    assert np.isnan(figures["relative_mce"])
    assert (figures["denominator"], figures["note"]) == ("", "")
    by_family = {"air": errors[["fog", "snow"]].mean(), "lens": errors["defocus_blur"].mean()}
    assert figures["family_errors"] == pytest.approx(by_family | {"more": errors["gaussian_noise"].mean()})


def test_it_has_an_mce_by_the_errors_that_it_names(tmp_path: Path) -> None:
    theirs = {"fog": (0.25, 0.5), "snow": (0.5, 0.75), "defocus_blur": (0.125, 0.25)}
    lines = [f"{name},1,{each[0]}\n{name},4,{each[1]}" for name, each in theirs.items()]
    (tmp_path / "theirs.csv").write_text("\n".join(["corruption,severity,error", *lines]))
    figures, errors = _figures(tmp_path, 'denominator = "theirs.csv"')
    ratios = [errors[name].sum() / sum(each) for name, each in theirs.items()]
    assert figures["mce"] == pytest.approx(100 * np.mean(ratios))
    assert np.isnan(figures["relative_mce"])  # the file has no clean error
    assert figures["denominator"] == "theirs"


def test_a_denominator_that_the_run_lacks_is_named(tmp_path: Path) -> None:
    figures, _ = _figures(tmp_path, 'denominator = "resnet"')
    assert figures["mean_error"] >= 0
    assert np.isnan(figures["mce"])
    assert "'resnet' is no model of this run" in figures["note"]
