"""Sparklines: the shape of a series, with noise looking like noise."""

from pathlib import Path

from robustbench_twicing.report.history import history_page
from robustbench_twicing.report.numbers import sparkline
from robustbench_twicing.results.history import Point, Series, add, series
from robustbench_twicing.results.run import load_run
from tests.records_builder import records, run_folder
from tests.report.shown import parsed, printed


def _series(*accuracies: float | None) -> Series:
    points = tuple(
        Point(f"night-{day}", f"2026-11-{day:02d}T02:00:00+00:00", "0f3a", "0.1.0", "", value, (0.8, 0.9), 0)
        for day, value in enumerate(accuracies, start=1)
    )
    return Series("deit", "clean", "digits", 597, points)


def test_a_rising_series_rises() -> None:
    assert sparkline([0.0, 1 / 7, 2 / 7, 3 / 7, 4 / 7, 5 / 7, 6 / 7, 1.0]) == "▁▂▃▄▅▆▇█"


def test_gaps_are_blank_and_a_constant_series_is_flat() -> None:
    assert sparkline([0.0, None, 1.0]) == "▁ █"
    assert len(set(sparkline([0.5] * 4))) == 1
    assert sparkline([None, None]) == "  "


def test_changes_within_the_interval_do_not_fill_the_height() -> None:
    assert set(sparkline([0.50, 0.51, 0.50], least=0.10)) <= set("▄▅")


def test_the_table_says_the_newest_the_change_and_the_nights() -> None:
    text = printed(history_page([_series(0.80, 0.90, 0.85)]))
    for words in ("deit", "85.0", "80.0 - 90.0", "−5.0", "2026-11-03", "0f3a", " 3 "):
        assert words in text


def test_a_narrow_table_says_the_data_set_and_how_many_samples() -> None:
    assert "digits, n = 597" in printed(history_page([_series(0.80)]), width=80)


def test_a_night_without_an_answer_is_shown_as_none() -> None:
    assert "│ - " in printed(history_page([_series(0.80, None)])).replace("        ", " ")


def test_cells_without_an_accuracy_are_shown(tmp_path: Path) -> None:
    """No answer to an outlier is right, so ImageNet-O has neither accuracy nor interval."""
    frame = records({("deit", "clean"): [True] * 5, ("deit", "imagenet-o"): [False] * 5})
    run = load_run(run_folder(tmp_path / "runs" / "night", frame, name="nightly"))
    assert add(run, tmp_path / "history.sqlite") == ""
    found = series(tmp_path / "history.sqlite")
    assert [line.points[0].interval is None for line in found] == [False, True]
    for width in (80, 200):
        assert "imagenet-o" in printed(history_page(found), width)
    assert len(parsed(history_page(found))) == 2


def test_the_machine_form_is_json() -> None:
    (line,) = parsed(history_page([_series(0.8, None)]))
    assert [point["accuracy"] for point in line["points"]] == [0.8, None]
