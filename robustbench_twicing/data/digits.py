"""The embedded benchmark: the 1,797 handwritten digits that ship inside scikit-learn.

They are the test part of E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits" (UCI, 1998): 8 x 8
counts from 0 to 16. Real images, no download, no account.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from robustbench_twicing.data.in_memory import MemoryDataset
from robustbench_twicing.data.order import balanced_order
from robustbench_twicing.errors import unknown_name
from robustbench_twicing.spec.plan import EMBEDDED_IMAGES


def digits(split: str = "test") -> MemoryDataset:
    """The digits as RGB 32 x 32: 597 to test on, 1,200 to train on, both stratified and always the same.

    Enlarged once, bilinearly, and rounded to 8 bits, so every pixel is an exact multiple of 1/255. Sample ids are
    `digits-0042`, the number being scikit-learn's. Raises `UserError` for an unknown split.
    """
    if split not in ("test", "train"):
        raise unknown_name("split", split, ("test", "train"))
    counts, labels = _table()
    sample_ids = [f"digits-{number:04d}" for number in range(len(labels))]
    order = balanced_order(sample_ids, labels)
    kept = order[:EMBEDDED_IMAGES] if split == "test" else order[EMBEDDED_IMAGES:]

    # In float64 every step up to the rounding is exact (counts over 16, bilinear weights over 8): the same everywhere.
    grey = torch.from_numpy(counts[kept]).double().unsqueeze(1) / 16
    large = F.interpolate(grey, size=(32, 32), mode="bilinear", align_corners=False)
    pixels = (large * 255).round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()
    return MemoryDataset(
        name="digits",
        classes=10,
        sample_ids=[sample_ids[position] for position in kept],
        labels=[labels[position] for position in kept],
        pixels=pixels,
    )


def _table() -> tuple[Any, list[int]]:
    """Counts (1797, 8, 8) and labels, as scikit-learn's `load_digits` has them, from the file that it reads: importing
    scikit-learn takes half as long as importing torch."""
    installed = find_spec("sklearn")
    for place in (installed.submodule_search_locations or ()) if installed else ():
        file = Path(place) / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            table = np.loadtxt(file, delimiter=",")
            return table[:, :-1].reshape(-1, 8, 8), [int(label) for label in table[:, -1]]
    from sklearn.datasets import load_digits

    source = load_digits()
    return source.images, [int(label) for label in source.target]
