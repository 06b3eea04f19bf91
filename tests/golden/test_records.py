"""The same experiments give the same records, sample by sample, whatever moves inside the package.

`records.csv` was written before the package was parted into rooms; `python -m tests.golden.test_records` writes it
again, for a change that is meant to change numbers and says so in the changelog.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from robustbench_twicing import evaluate

FILE = Path(__file__).with_name("records.csv")

BOTH = ["deit", "deit-tw"]
NINETEEN = ["common", "speckle_noise", "gaussian_blur", "spatter", "saturate"]
EXPERIMENTS: Mapping[str, Mapping[str, Any]] = {
    "gradients": {"models": BOTH, "attacks": ["fgsm", "pgd", "mifgsm"], "eps": ["1/255", "4/255"], "limit": 8},
    "worst case": {"models": BOTH, "attacks": ["fgsm", "apgd-ce", "apgd-t"], "eps": "16/255", "worst_case": True},
    "search": {"models": ["deit-tw"], "attacks": ["square", "spsa"], "eps": "16/255", "limit": 1},
    "l2": {"models": ["deit"], "attacks": ["pgd-l2", "noise-l2"], "eps": ["0.5", "1.5"]},
    "paper": {"models": ["deit-tw-last3"], "attacks": ["fgsm", "pgd"], "eps": "4/255", "protocol": "paper"},
    "rounded": {"models": ["deit"], "attacks": ["pgd"], "eps": "4/255", "precision": "bfloat16", "eight_bit": True},
    "transfer": {"models": ["deit-tw"], "attacks": ["pgd"], "eps": "8/255", "source_model": "deit"},
    "bridge": {"models": ["deit"], "attacks": ["bim", "fgsm"], "eps": "4/255", "engine": "torchattacks"},
    "suite": {"models": BOTH, "suites": ["digits-c"], "corruptions": NINETEEN, "severities": [3], "limit": 12},
}
LIMITS = {"worst case": 2}
"""Samples of an experiment that names no limit; else 12."""

EXACT = ["model", "threat", "kind", "suite", "protocol_hash", "sample_id", "label", "status", "prediction", "correct",
         "correct_unmasked", "top5_correct", "correct_8bit", "rejected", "forwards", "backwards"]  # fmt: skip
NEAR = {"margin": 2e-3, "loss": 2e-3, "confidence": 2e-3, "linf_distance": 1e-6, "l2_distance": 1e-4}
"""Absolute: other processors sum in another order, which moved no margin of digits by more than 1e-3."""
ROUNDED = dict.fromkeys(NEAR, 1e-2) | {"linf_distance": 1e-6}
"""Where bfloat16 crafts: it has 8 bits, and a processor that multiplies in it takes some steps the other way. Margins
moved by 3e-3 and L2 distances by 7e-4, and none of the exact columns."""


def records_of(name: str, out: Path) -> pd.DataFrame:
    """The records of one experiment, in the columns that do not depend on time, machine or schema."""
    found = evaluate(**{"limit": LIMITS.get(name, 12), **EXPERIMENTS[name]}, out=out).records
    rounded = found[list(NEAR)].round(6)
    return pd.concat([found[EXACT], rounded], axis=1)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_records_are_those_of_before(name: str, tmp_path: Path) -> None:
    text = dict.fromkeys(("suite", "protocol_hash", "kind"), str)
    golden = pd.read_csv(FILE, dtype=text, keep_default_na=False, na_values={column: [""] for column in NEAR})
    expected = golden[golden["experiment"] == name].drop(columns="experiment").reset_index(drop=True)
    found = records_of(name, tmp_path / "run")
    pd.testing.assert_frame_equal(found[EXACT], expected[EXACT], check_dtype=False)
    rounded = EXPERIMENTS[name].get("precision") == "bfloat16"
    for column, atol in (ROUNDED if rounded else NEAR).items():
        pd.testing.assert_series_equal(found[column], expected[column], check_dtype=False, rtol=0, atol=atol)


def _write() -> None:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as place:
        frames = [records_of(name, Path(place, name)).assign(experiment=name) for name in EXPERIMENTS]
    pd.concat(frames).to_csv(FILE, index=False, float_format="%.6g", lineterminator="\n")


if __name__ == "__main__":
    _write()
