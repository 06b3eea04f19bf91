"""The columns of a summary that no other test looks at."""

import numpy as np
import pytest

from robustbench_twicing.results.summary import summarize
from tests.records_builder import cell


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
    assert summarize(frame, {})["rejected"].iloc[0] == pytest.approx(share, nan_ok=True)
