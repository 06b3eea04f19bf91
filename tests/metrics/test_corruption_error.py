import csv

import numpy as np
import pytest

from robustbench_twicing.catalog.denominators import denominator
from robustbench_twicing.catalog.locate import definitions
from robustbench_twicing.catalog.suites import suite
from robustbench_twicing.errors import UserError
from robustbench_twicing.metrics.corruption_error import (
    corruption_errors,
    errors_by_cell,
    family_means,
    mce,
    mean_error,
    relative_corruption_errors,
    relative_mce,
)
from tests.oracles.statistics import mce_by_loops, relative_mce_by_loops

IMAGENET_C, ALEXNET = suite("imagenet-c"), denominator("alexnet")
COMMON, SEVERITIES = IMAGENET_C.common, IMAGENET_C.severities
OVER = IMAGENET_C.families, SEVERITIES
CELLS = [(name, severity) for name in COMMON for severity in SEVERITIES]

# Means over the severities as others hard-code them (alibaba/easyrobust `easyrobust/benchmarks/ood/imagenet_c.py` at
# c8b6c08): a copy of the constants that did not come from the same list as ours.
EASYROBUST = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}

# Accuracies at severities 1-5 on RobustBench's 5,000 images of ImageNet-C, of AlexNet and of torchvision's ResNet-50
# (RobustBench/robustbench `model_info/imagenet/corruptions/unaggregated_results.csv`, commit 78fcc9e).
ROBUSTBENCH_ALEXNET = {
    "gaussian_noise": (0.311, 0.1814, 0.0724, 0.0214, 0.0058),
    "shot_noise": (0.2944, 0.1598, 0.0726, 0.0196, 0.012),
    "impulse_noise": (0.2234, 0.1154, 0.0556, 0.014, 0.0054),
    "defocus_blur": (0.3404, 0.262, 0.1502, 0.085, 0.0522),
    "glass_blur": (0.3486, 0.2412, 0.1126, 0.08, 0.0636),
    "motion_blur": (0.4174, 0.295, 0.1794, 0.1022, 0.0698),
    "zoom_blur": (0.3028, 0.2308, 0.1936, 0.163, 0.1312),
    "snow": (0.2788, 0.114, 0.132, 0.085, 0.0502),
    "frost": (0.3788, 0.1976, 0.1052, 0.0994, 0.0616),
    "fog": (0.3154, 0.2324, 0.157, 0.1214, 0.0556),
    "brightness": (0.5504, 0.514, 0.464, 0.3886, 0.2906),
    "contrast": (0.3496, 0.2334, 0.1094, 0.0266, 0.0094),
    "elastic_transform": (0.471, 0.3022, 0.44, 0.3568, 0.1898),
    "pixelate": (0.4754, 0.4502, 0.267, 0.1288, 0.0858),
    "jpeg_compression": (0.4858, 0.4522, 0.4228, 0.3488, 0.2564),
}
ROBUSTBENCH_RESNET50 = {
    "gaussian_noise": (0.602, 0.4878, 0.3124, 0.1422, 0.0288),
    "shot_noise": (0.5828, 0.4486, 0.2856, 0.1026, 0.0352),
    "impulse_noise": (0.4854, 0.3862, 0.2904, 0.113, 0.0244),
    "defocus_blur": (0.5914, 0.5154, 0.3808, 0.2752, 0.1824),
    "glass_blur": (0.5362, 0.3974, 0.1708, 0.1306, 0.1034),
    "motion_blur": (0.636, 0.5342, 0.3754, 0.2158, 0.1452),
    "zoom_blur": (0.5258, 0.4302, 0.356, 0.2844, 0.2194),
    "snow": (0.5468, 0.312, 0.3494, 0.2344, 0.165),
    "frost": (0.6106, 0.4366, 0.3064, 0.2864, 0.2258),
    "fog": (0.6092, 0.56, 0.4674, 0.4024, 0.236),
    "brightness": (0.736, 0.7222, 0.6958, 0.6496, 0.5886),
    "contrast": (0.6428, 0.5824, 0.466, 0.2098, 0.0542),
    "elastic_transform": (0.6684, 0.4514, 0.5456, 0.4122, 0.1702),
    "pixelate": (0.638, 0.6434, 0.4598, 0.293, 0.2088),
    "jpeg_compression": (0.6644, 0.6234, 0.6004, 0.4786, 0.3254),
}


def random_errors(seed=0):
    return dict(zip(CELLS, np.random.default_rng(seed).uniform(0.3, 0.9, len(CELLS)).tolist(), strict=True))


def test_alexnet_errors_have_the_means_that_others_use():
    assert set(ALEXNET.by_cell) == set(CELLS)
    means = {name: np.mean([ALEXNET.by_cell[name, severity] for severity in SEVERITIES]) for name in COMMON}
    assert means == pytest.approx(EASYROBUST, abs=5e-7)  # theirs are given to six digits
    assert ALEXNET.clean == 0.4348


def test_every_alexnet_row_names_its_source_and_its_family():
    with (definitions("corruptions") / "alexnet-errors.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 76
    assert all(row["source"] for row in rows)
    assert all(row["corruption"] in OVER[0].get(row["family"], ("clean",)) for row in rows)


def test_alexnet_measured_by_itself_is_exactly_100():
    assert mce(ALEXNET.by_cell, ALEXNET.by_cell, *OVER) == 100
    assert relative_mce(ALEXNET.by_cell, ALEXNET.clean, ALEXNET.by_cell, ALEXNET.clean, *OVER) == 100


def by_cell(accuracies):
    return {(name, severity): 1 - accuracies[name][severity - 1] for name, severity in CELLS}


def test_resnet50_has_its_published_mce():
    resnet, alexnet = by_cell(ROBUSTBENCH_RESNET50), by_cell(ROBUSTBENCH_ALEXNET)
    # RobustBench publishes accuracy 39.48 and mCE 76.38, against AlexNet on its own images (`Standard_R50.json`).
    assert 100 * (1 - mean_error(resnet, *OVER)) == pytest.approx(39.48, abs=0.005)
    assert mce(resnet, alexnet, *OVER) == pytest.approx(76.38, abs=0.005)
    # Against AlexNet on all images it moves by about 0.01 (field notes, 4.3).
    assert mce(resnet, ALEXNET.by_cell, *OVER) == pytest.approx(76.37, abs=0.005)
    assert mce(resnet, alexnet, *OVER) == pytest.approx(mce_by_loops(resnet, alexnet, list(EASYROBUST)))


def test_by_hand():
    # Twice the denominator's errors under noise (3 of 15), the same under the other 12: mCE 100 × (3 × 2 + 12) / 15.
    denominators = dict.fromkeys(CELLS, 0.3)
    errors = {cell: 0.6 if cell[0] in OVER[0]["noise"] else 0.3 for cell in CELLS}
    assert mce(errors, denominators, *OVER) == pytest.approx(120)
    assert family_means(corruption_errors(errors, denominators, *OVER), OVER[0]) == pytest.approx(
        {"noise": 200, "blur": 100, "weather": 100, "digital": 100}
    )
    assert mean_error(errors, *OVER) == pytest.approx((3 * 0.6 + 12 * 0.3) / 15)
    # Clean 0.2 against 0.1: noise adds 0.4 to 0.2's 0.2, the others add 0.1 to 0.2's 0.2.
    assert relative_mce(errors, 0.2, denominators, 0.1, *OVER) == pytest.approx(100 * (3 * 2 + 12 * 0.5) / 15)


def test_sums_are_divided_not_severities():
    # One severity has all the errors: a mean of the ratios by severity would be dominated by the tiny denominators.
    denominators = {cell: 0.01 if cell[1] < 5 else 0.96 for cell in CELLS}
    errors = {cell: 0.02 if cell[1] < 5 else 0.92 for cell in CELLS}
    assert mce(errors, denominators, *OVER) == pytest.approx(100)


def test_any_denominator_model_agrees_with_loops():
    errors, denominators = random_errors(1), random_errors(2)
    assert mce(errors, denominators, *OVER) == pytest.approx(mce_by_loops(errors, denominators, COMMON))
    assert relative_mce(errors, 0.1, denominators, 0.15, *OVER) == pytest.approx(
        relative_mce_by_loops(errors, 0.1, denominators, 0.15, COMMON)
    )


def test_extra_corruptions_never_enter():
    errors, denominators = random_errors(1), random_errors(2)
    more = errors | {
        (name, s): 0.99 for name in ("speckle_noise", "gaussian_blur", "spatter", "saturate") for s in SEVERITIES
    }
    assert mce(more, denominators, *OVER) == mce(errors, denominators, *OVER)
    assert mean_error(more, *OVER) == mean_error(errors, *OVER)
    assert set(corruption_errors(more, denominators, *OVER)) == set(COMMON)


def test_missing_cells_are_refused_and_listed():
    errors = random_errors()
    del errors["fog", 3], errors["fog", 5]
    for severity in SEVERITIES:
        del errors["snow", severity]
    errors["frost", 1] = float("nan")  # nothing was evaluated there
    for attempt in (
        lambda: mce(errors, random_errors(), *OVER),
        lambda: mce(random_errors(), errors, *OVER),
        lambda: relative_mce(errors, 0.1, random_errors(), 0.1, *OVER),
        lambda: mean_error(errors, *OVER),
    ):
        with pytest.raises(UserError, match=r"missing: snow \(all\), frost 1, fog 3 5\.") as refusal:
            attempt()
        assert refusal.value.hint


def test_denominators_that_make_no_error_are_refused_by_name():
    perfect = random_errors() | {("brightness", severity): 0.0 for severity in SEVERITIES}
    with pytest.raises(UserError, match="makes no error under brightness"):
        mce(random_errors(1), perfect, *OVER)
    unharmed = random_errors() | {("fog", severity): 0.1 for severity in SEVERITIES}
    with pytest.raises(UserError, match="loses nothing under fog"):
        relative_mce(random_errors(1), 0.1, unharmed, 0.1, *OVER)


def test_a_corruption_that_helps_counts_negative():
    errors = random_errors() | {("brightness", severity): 0.05 for severity in SEVERITIES}
    assert relative_corruption_errors(errors, 0.1, random_errors(2), 0.1, *OVER)["brightness"] < 0


def test_outcomes_become_errors_by_cell():
    outcomes = np.array([[True, False], [False, False]])
    errors = errors_by_cell(outcomes, [("fog", 1), ("snow", 2)])
    assert errors["fog", 1].tolist() == [0, 1]
    assert errors["snow", 2].tolist() == [1, 1]
