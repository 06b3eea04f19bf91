"""The columns of a summary that no other test looks at."""

import numpy as np
import pandas as pd
import pytest

from robustbench_twicing.metrics.calibration import aurc, expected_calibration_error
from robustbench_twicing.results.cells import by_cell
from robustbench_twicing.results.summary import summarize
from tests.records_builder import cell, records, suites_of


@pytest.mark.parametrize(
    ("precision", "doubted", "share"),
    [
        ("bfloat16", True, 2 / 3),
        ("bfloat16", False, 0.0),
        ("float32", True, 2 / 3),  # compiled
        ("float32", False, np.nan),
    ],
)
def test_the_share_of_successes_that_float32_did_not_confirm(precision: str, doubted: bool, share: float) -> None:
    # Broken; doubted, and robust after all; doubted, and broken in float32; robust; wrong before the attack.
    columns = {"rejected": [False, doubted, doubted, False, False], "forwards": [20, 20, 20, 20, 1]}
    frame = cell("deit", "pgd-linf-1/255", [False, True, False, True, False], precision=precision, **columns)
    assert summarize(by_cell(frame), {})["rejected"].iloc[0] == pytest.approx(share, nan_ok=True)


def test_probabilities_are_judged_under_every_threat_and_failures_are_left_out() -> None:
    draw = np.random.default_rng(1)
    right = np.arange(80) % 5 > 0
    shown = {name: draw.uniform(0.1, 1, 80) for name in ("loss", "brier", "confidence")}
    status = np.where(np.arange(80) < 10, "failed", "ok")
    frames = [cell("deit", threat, right, status=status, **shown) for threat in ("clean", "pgd-linf-1/255")]
    for row in summarize(by_cell(pd.concat(frames)), {}).to_dict("records"):
        assert row["mean_loss"] == pytest.approx(shown["loss"][10:].mean())
        assert row["brier"] == pytest.approx(shown["brier"][10:].mean())
        assert row["aurc"] == pytest.approx(aurc(shown["confidence"][10:], right[10:]))
        assert row["ece"] == pytest.approx(expected_calibration_error(shown["confidence"][10:], right[10:]))
        for name in ("mean_loss", "brier", "aurc", "ece"):
            assert 0 <= row[f"{name}_low"] < row[name] < row[f"{name}_high"]
    (alone,) = summarize(by_cell(frames[0].iloc[10:11]), {}).to_dict("records")  # of one image there is no interval
    assert alone["brier"] == shown["brier"][10]
    assert np.isnan(alone["brier_low"])


def test_what_is_lost_is_negative() -> None:
    summary = summarize(
        by_cell(records({("deit", "clean"): [1, 1, 1, 0], ("deit", "pgd-linf-1/255"): [1, 0, 0, 0]})), {}
    )
    clean, attacked = (summary[summary["threat"] == threat].iloc[0] for threat in ("clean", "pgd-linf-1/255"))
    assert attacked["drop"] == -0.5
    assert clean["drop"] == 0


def test_a_drop_is_over_the_samples_that_both_runs_answered() -> None:
    """The attack was run on three of four samples, and clean failed on one of these, which the attack answered."""
    clean = cell("deit", "clean", [True, False, True, True], status=["ok", "failed", "ok", "ok"])
    attacked = cell("deit", "pgd-linf-1/255", [True, True, False, False]).iloc[:3]
    row = summarize(by_cell(pd.concat([clean, attacked])), {}).iloc[1]
    assert (row["n"], row["accuracy"]) == (3, pytest.approx(2 / 3))
    assert row["clean_accuracy"] == 1  # samples 0 and 2
    assert row["drop"] == -0.5  # and of these the attack leaves one


def test_a_shifted_data_set_has_images_of_its_own_so_its_drop_is_unpaired() -> None:
    shifted = cell("deit", "imagenet-sketch", [True, False], sample_id=["a", "b"])
    frame = pd.concat([cell("deit", "clean", [True, True, True, False]), shifted])
    summary = summarize(by_cell(frame), suites_of(frame))
    assert summary["drop"].iloc[1] == pytest.approx(0.5 - 0.75)
