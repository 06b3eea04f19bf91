"""Every mistake gets an error that says what was wrong and what to do."""

import re

import numpy as np
import pytest
import torch

from robustbench_twicing.engine.corruptions import corrupt
from robustbench_twicing.errors import UserError

GREY = torch.full((2, 3, 32, 32), 0.5)


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        ({"severity": 0}, "Severity 0", "1 .* to 5"),
        ({"severity": 6}, "Severity 6", "1 .* to 5"),
        ({"name": "gausian_noise"}, "Unknown corruption 'gausian_noise'", "Did you mean gaussian_noise"),
        ({"name": "rain"}, "Unknown corruption 'rain'", "Available: brightness, contrast"),
        ({"images": GREY + 0.6}, "from 1.1 to 1.1", "before any normalisation"),
        ({"images": GREY - 0.6}, "from -0.1 to -0.1", r"\[0, 1\]"),
        ({"images": GREY.clone().index_fill_(0, torch.tensor([1]), float("nan"))}, "nan", "without NaN"),
        ({"images": (GREY * 255).to(torch.uint8)}, "uint8", "divide 8-bit levels by 255"),
        ({"images": GREY[:, :1]}, r"shape \(2, 1, 32, 32\)", "RGB, channels first"),
        ({"images": GREY[0]}, r"shape \(3, 32, 32\)", r"\(batch, 3, height, width\)"),
        ({"images": torch.rand(1, 3, 31, 64)}, "31 × 64", "from 32 pixels"),
        ({"images": torch.rand(1, 3, 64, 31)}, "64 × 31", "from 32 pixels"),
        ({"images": GREY[:0]}, "no image", "at least one"),
        ({"ids": ["a"]}, "2 images came with 1 ids", "one sample id for each"),
        ({"jpeg_quality": 0}, "JPEG quality 0", "1 to 100"),
        ({"jpeg_quality": 101}, "JPEG quality 101", "1 to 100"),
        ({"name": "frost", "frost_dir": "nowhere"}, "frost1.png.* in nowhere", "create_c of hendrycks/robustness"),
    ],
)
def test_a_mistake_is_named_with_its_remedy(change, message, hint):
    arguments = {"images": GREY, "name": "fog", "severity": 3} | change
    with pytest.raises(UserError) as caught:
        corrupt(**arguments)
    assert re.search(message, caught.value.message)
    assert re.search(hint, caught.value.hint)


@pytest.mark.parametrize("kind", ["float32", "float64", ">f4"])
def test_an_array_is_taken_for_a_tensor(kind: str) -> None:
    images = GREY
    made = corrupt(images.numpy().astype(kind), "fog", 3)
    assert torch.equal(made, corrupt(images, "fog", 3))


def test_an_array_of_something_else_is_refused() -> None:
    with pytest.raises(UserError, match="an array of object"):
        corrupt(np.full((1, 3, 32, 32), None), "fog", 3)
    with pytest.raises(UserError, match=r"hold torch\.uint8"):
        corrupt(np.zeros((1, 3, 32, 32), np.uint8), "fog", 3)
