"""Contact sheets of all corruptions: 19 rows, five severities, ours beside imagecorruptions where it is installed.

    python benchmarks/contact_sheets.py [--out docs/img]

writes `corruptions-photo.jpg` (224 pixels, a photograph that scikit-learn ships) and `corruptions-digits.png` (32
pixels, some digits). They are there to be looked at: docs/corruptions.md shows them.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from robustbench_twicing.data.digits import digits
from robustbench_twicing.engine.corruptions import corrupt
from robustbench_twicing.spec.corruptions import CORRUPTIONS, SEVERITIES
from robustbench_twicing.spec.models import Recipe
from tests.oracles.corruptions import peer

Reference = Callable[[np.ndarray, str, int], np.ndarray]
"""(height, width, 3) uint8, name and severity to a corrupted picture of the same kind."""

_LABEL = 130


def contact_sheet(path: str | Path, image: torch.Tensor, reference: Reference | None = None, shown: int = 96) -> None:
    """Writes one picture under 19 corruptions (rows) and five severities (columns) to `path`, `reference` to the right.

    `image` (3, height, width) in [0, 1]; each picture is shown `shown` pixels high, frost as drawn by us. The format
    follows the file's name.
    """
    width = shown * image.shape[2] // image.shape[1]
    blocks = 1 if reference is None else 2
    sheet = Image.new("RGB", (_LABEL + blocks * 5 * (width + 2) + 10 * (blocks - 1), 20 + 19 * (shown + 2)), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((_LABEL, 4), "ours, severity 1 to 5", fill="black")
    if reference is not None:
        draw.text((_LABEL + 5 * (width + 2) + 10, 4), "imagecorruptions, severity 1 to 5", fill="black")
    picture = _picture(image)
    for row, (name, corruption) in enumerate(CORRUPTIONS.items()):
        top = 20 + row * (shown + 2)
        draw.text((4, top + 4), f"{name}\n({corruption.family})", fill="black")
        for column, severity in enumerate(SEVERITIES):
            left = _LABEL + column * (width + 2)
            _paste(sheet, _picture(corrupt(image[None], name, severity, frost_dir="drawn")[0]), left, top, width, shown)
            if reference is not None:
                left += 5 * (width + 2) + 10
                _paste(sheet, reference(picture, name, severity), left, top, width, shown)
    sheet.save(path, **({"quality": 70} if str(path).endswith("jpg") else {"optimize": True}))


def _paste(sheet: Image.Image, picture: np.ndarray, left: int, top: int, width: int, height: int) -> None:
    method = Image.Resampling.NEAREST if picture.shape[0] <= height else Image.Resampling.LANCZOS
    sheet.paste(Image.fromarray(picture).resize((width, height), method), (left, top))


def _picture(image: torch.Tensor) -> np.ndarray:
    return (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


def _photograph() -> torch.Tensor:
    from sklearn.datasets import load_sample_image

    whole = Image.fromarray(load_sample_image("china.jpg"))
    side = min(whole.size)
    left = (whole.width - side) // 2
    picture = whole.crop((left, 0, left + side, side)).resize((224, 224), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255


def _digits() -> torch.Tensor:
    """Two digits of 32 pixels side by side."""
    dataset = digits()
    (images,) = dataset.read((0, 7), (Recipe(),)).images.values()
    return torch.cat(tuple(images), dim=2)


def _reference() -> Reference | None:
    try:
        module = peer.load()
    except ModuleNotFoundError:
        return None
    return lambda picture, name, severity: peer.corrupt(module, picture, name, severity)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[1] / "docs" / "img")
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    np.random.seed(0)  # noqa: NPY002 - imagecorruptions draws from numpy's global generator
    contact_sheet(folder / "corruptions-photo.jpg", _photograph(), _reference(), shown=88)
    contact_sheet(folder / "corruptions-digits.png", _digits(), None, shown=64)


if __name__ == "__main__":
    main()
