"""What a comparison looks like to a reader and to a machine."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from robustbench_twicing.catalog.suites import suite
from robustbench_twicing.errors import UserError
from robustbench_twicing.report.compare import compare_page
from robustbench_twicing.report.plots import plot_curves
from robustbench_twicing.results.comparison import Comparisons, compare_sides
from tests.records_builder import cell, records, side, with_flips
from tests.report.shown import parsed, printed

SUITE = suite("imagenet-c")


def _found(lost: int = 10, gained: int = 60) -> Comparisons:
    before, after = with_flips(500, right=300, lost=lost, gained=gained)
    weak = {name: side & (np.arange(500) % 3 > 0) for name, side in (("deit", before), ("deit-tw", after))}
    frame = records(
        {
            ("deit", "clean"): before,
            ("deit", "pgd-linf-1/255"): weak["deit"],
            ("deit-tw", "clean"): after,
            ("deit-tw", "pgd-linf-1/255"): weak["deit-tw"],
        }
    )
    sides = [side(frame, name) for name in ("deit", "deit-tw")]
    return compare_sides([(sides[0], sides[1])])


def _printed(found: Comparisons, flips: bool = False, width: int = 200) -> str:
    return printed(compare_page(found, flips), width)


def test_a_row_says_both_accuracies_the_difference_the_flips_and_the_verdict() -> None:
    (line,) = [line for line in _printed(_found()).splitlines() if "│ clean " in line]
    cells = [cell.strip() for cell in line.strip("│ ").split("│")]
    assert cells[:4] == ["clean", "500", "60.0", "70.0"]
    assert cells[4] == "+10.0"
    assert cells[6:10] == ["10", "60", "< 0.001", "better (these weights)"]
    assert cells[10].startswith("≥ ")


def test_a_comparison_of_models_says_that_it_is_about_weights() -> None:
    assert "another training seed may reverse them" in " ".join(_printed(_found()).split())
    assert parsed(compare_page(_found()))["unit"] == "checkpoints"


def test_one_model_under_two_seeds_shows_what_the_draws_decide_and_gets_no_verdict() -> None:
    right = np.arange(200) < 150
    turned = right ^ np.isin(np.arange(200), (3, 4, 180))
    attack = "pgd-linf-1/255"
    seeds = [
        side(
            pd.concat([cell("deit", "clean", right, seed=seed), cell("deit", attack, broken, seed=seed)]),
            "deit",
        )
        for seed, broken in ((0, right), (1, turned))
    ]
    page = compare_page(compare_sides([(seeds[0], seeds[1]._replace(name="deit again"))]))
    text = " ".join(printed(page, 250).split())
    assert "the draws decide 3 (± 0.61 points over seeds)" in text
    assert "the draws decide 0 " in text
    assert "The same weights with two seeds" in text
    assert "these weights, not about methods" not in text
    assert [row["verdict"] for row in parsed(page)["rows"]] == ["same weights"] * 2
    assert parsed(page)["family"] == 0


def test_max_t_takes_the_place_of_holm_in_numbers_heading_and_legend() -> None:
    before, after = with_flips(400, right=250, lost=20, gained=38)
    threats = ("clean", "pgd-linf-1/255", "fgsm-linf-1/255")
    frame = records({(name, one): right for one in threats for name, right in (("deit", before), ("deit-tw", after))})
    sides = [(side(frame, "deit"), side(frame, "deit-tw"))]
    by_holm, found = compare_sides(sides), compare_sides(sides, by_max_t=True)
    assert {row.verdict for row in by_holm.rows} == {"no difference found"}
    assert {row.verdict for row in found.rows} == {"better"}  # three rows that are one
    text = printed(compare_page(found), 250)
    assert "p (max-T)" in text
    assert "max-T over all 3 row(s)" in " ".join(text.split())
    assert parsed(compare_page(found))["correction"] == "max-T"
    with pytest.raises(UserError, match="one look"):
        compare_sides(sides, by_max_t=True, sequential=True)


def test_the_rows_of_several_candidates_share_the_error() -> None:
    before, after = with_flips(400, right=250, lost=20, gained=44)
    frame = records({("deit", "clean"): before, ("deit-tw", "clean"): after, ("again-tw", "clean"): after})
    sides = [(side(frame, "deit"), side(frame, other)) for other in ("deit-tw", "again-tw")]
    one, both = (compare_sides(some, by_max_t=True).rows[0].outcome.p_holm for some in (sides[:1], sides))
    assert one is not None
    assert both == pytest.approx(2 * one)


def test_the_heading_of_intervals_has_their_level() -> None:
    found = replace(_found(), alpha=0.01, curves=())
    assert "99 % interval" in _printed(found)
    assert "95 %" not in _printed(found)


def test_no_difference_found_says_what_it_would_take() -> None:
    text = _printed(_found(lost=10, gained=14))
    assert "no difference found (≥ " in text
    assert "points would have shown)" in text


def test_curves_stand_below_with_area_and_half() -> None:
    for width in (80, 200):
        text = _printed(_found(), width=width)
        assert "Robustness curves" in text
        assert "0: 60.0  1/255: 40.0" in text
        assert "> 1/255" in text
    assert "area +8" in _printed(_found(), width=80)
    (line,) = [line for line in text.splitlines() if "1/255: 4" in line and "deit-tw" in line]
    assert line.split("│")[-3].strip().startswith("+8")


def test_flips_are_listed_only_when_asked_for() -> None:
    assert "test-00000" not in _printed(_found())
    text = _printed(_found(), flips=True)
    assert "clean: 70 samples changed sides" in text
    assert "test-00000" in text


def test_the_machine_form_is_json_and_complete() -> None:
    content = parsed(compare_page(_found(), flips=True))
    row = content["rows"][0]
    assert (row["verdict"], row["lost"], row["gained"], row["n"]) == ("better", 10, 60, 500)
    assert row["difference"] == pytest.approx(0.1)
    assert len(row["flips"]) == 70
    assert content["family"] == 2
    assert content["curves"][0]["eps"] == ["0", "1/255"]
    assert len(content["curves"][0]["area_difference_interval"]) == 2
    assert "flips" not in parsed(compare_page(_found()))["rows"][0]


@pytest.mark.parametrize(("ending", "begins"), [(".png", b"\x89PNG"), (".svg", b"<?xml")])
def test_curves_become_a_picture(tmp_path: Path, ending: str, begins: bytes) -> None:
    pytest.importorskip("matplotlib")
    plot_curves(compare_page(_found()).curves, tmp_path / "new" / f"curves{ending}")
    assert (tmp_path / "new" / f"curves{ending}").read_bytes().startswith(begins)


def test_a_picture_without_curves_or_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no curve"):
        plot_curves([], tmp_path / "curves.png")
    with pytest.raises(UserError, match=r"\.bmp"):
        plot_curves(compare_page(_found()).curves, tmp_path / "curves.bmp")


def test_a_missing_matplotlib_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match="matplotlib") as caught:
        plot_curves(compare_page(_found()).curves, tmp_path / "curves.png")
    assert "twicing-bench[plots]" in caught.value.hint


def _on_imagenet_c(bright: int) -> pd.DataFrame:
    """deit-tw is right on two of 100 images more under each corruption, but errs on `bright` under brightness."""
    cells = []
    for model, common, there in (("deit", 50, 0), ("deit-tw", 48, bright)):
        for name, severity in product(SUITE.common, SUITE.severities):
            wrong = there if name == "brightness" else common
            cells.append(cell(model, f"imagenet-c:{name}-{severity}", np.arange(100) >= wrong))
    return pd.concat(cells, ignore_index=True)


@pytest.mark.parametrize("order", [("deit", "deit-tw"), ("deit-tw", "deit")])
def test_a_higher_mce_beside_a_lower_mean_error_is_explained(order: tuple[str, str]) -> None:
    """AlexNet errs least under brightness, so an error there weighs most."""
    frame = _on_imagenet_c(bright=24)
    text = " ".join(_printed(compare_sides([(side(frame, order[0]), side(frame, order[1]))])).split())
    assert "imagenet-c: deit-tw has the lower mean error and the higher mCE beside deit. mCE divides" in text
    assert "those under which AlexNet errs least count most" in text


def test_figures_of_one_order_need_no_explanation() -> None:
    """And an mCE of 100 images says so in its row."""
    frame = _on_imagenet_c(bright=0)
    text = _printed(compare_sides([(side(frame, "deit"), side(frame, "deit-tw"))]))
    assert "mCE divides" not in text
    assert all("100 of 50,000" in line for line in text.splitlines() if "│ mCE" in line)
    assert "│ mCE" in text
