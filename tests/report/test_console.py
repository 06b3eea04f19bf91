"""What the reports say of a model in one line."""

import pytest

from robustbench_twicing.report.console import model_line


@pytest.mark.parametrize(
    ("twicing", "blocks", "said"),
    [
        ("none", 12, "softmax attention"),
        ("none", 0, "attention unknown"),  # a ResNet has no blocks that could be looked at
        ("all", 12, "twicing attention in all 12 blocks"),
        ("9 10 11", 12, "twicing attention in blocks 9 10 11 of 0-11"),
    ],
)
def test_a_model_line_claims_no_attention_that_nobody_looked_at(twicing: str, blocks: int, said: str) -> None:
    card = {"architecture": "a", "twicing": twicing, "blocks": blocks, "parameters": 1000, "weights_note": ""}
    assert (
        model_line("m", card | {"weights": "w", "weights_hash": "h"})
        == f"m: a, {said}, 1,000 parameters, weights w (h)"
    )
