"""What the reports say of a model in one line."""

import pytest

from robustbench_twicing.report.notes import model_line
from robustbench_twicing.results.used import ModelUsed
from robustbench_twicing.spec.models import ModelSpec


@pytest.mark.parametrize(
    ("attention", "blocks", "said"),
    [
        ("softmax", 12, "softmax attention"),
        ("", 0, "attention unknown"),  # a ResNet has no blocks that could be looked at
        ("twicing", 12, "twicing attention in all 12 blocks"),
        ("twicing@9,10,11", 12, "twicing attention in blocks 9,10,11 of 0-11"),
        (
            "twicing(0.5)@0+twicing@9,11",
            12,
            "twicing(0.5) attention in blocks 0 and twicing attention in blocks 9,11 of 0-11",
        ),
    ],
)
def test_a_model_line_says_its_size_and_claims_no_attention_unseen(attention: str, blocks: int, said: str) -> None:
    model = ModelUsed(
        spec=ModelSpec(name="m", architecture="a", weights="w"),
        attention=attention,
        blocks=blocks,
        parameters=1000,
        weights_hash="h",
        weights_note="",
        classes=10,
        image_size=32,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )
    assert model_line("m", model) == f"m: a at 32 × 32, {said}, 1,000 parameters, weights w (h)"
