"""Do kept images belong to the records beside them: whose they are, how far they were changed, and what PNG shows."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from robustbench_twicing.errors import UserError
from robustbench_twicing.results.cells import Cells
from robustbench_twicing.results.manifest import Manifest
from robustbench_twicing.results.parse import boundary
from robustbench_twicing.results.store import ARRAYS, IMAGES
from robustbench_twicing.spec.threats import AttackThreat

_INFLATED = 1000
"""An archive of arrays that would be so many times larger than it is, is a trap."""
_ONE_LEVEL = 1.001 / 255
_HINT = "Ask whoever made it for the file again, or for a bundle without --images."


class AtOdds(NamedTuple):
    """Something of a kept image that does not follow from the records or from the image's own values."""

    file: str
    sample: str
    column: str
    claimed: str
    follows: str


def images_at_odds(folder: Path, manifest: Manifest, cells: Cells) -> tuple[int, list[AtOdds]]:
    """How many images lie in an unpacked bundle, and what is wrong with them. Raises `UserError` for what is no image.

    Looked at are labels, predictions and `correct` (of the records), under an attack the distance from the clean
    image (within eps), and every PNG (the array's image, to one level of 256).
    """
    images, found = 0, list[AtOdds]()
    for entry, cell in zip(manifest.cells, manifest.plan.cells, strict=True):
        place = folder / IMAGES / entry.folder
        if not place.is_dir():
            continue
        name = f"{IMAGES}/{entry.folder}"
        if not (place / ARRAYS).is_file():
            raise UserError(f"{name} has no {ARRAYS}.", _HINT)
        arrays = _arrays(place / ARRAYS)
        images += len(arrays["ids"])
        rows = cells[entry.model, entry.threat]
        found += [one._replace(file=f"{name}/{ARRAYS}") for one in _not_recorded(arrays, rows)]
        if cell.threat.kind == "attack":
            found += [one._replace(file=f"{name}/{ARRAYS}") for one in _too_far(arrays, cell.threat)]
        seen = np.concatenate([_pixels(arrays), arrays["clean"]])
        for file in sorted(place.glob("*.png")):
            if not _is_one_of(_png(file), seen):
                found.append(AtOdds(f"{name}/{file.name}", "", "pixels", "an image", f"none of {ARRAYS}"))
    return images, found


def _arrays(file: Path) -> dict[str, np.ndarray]:
    with boundary(file, _HINT):
        with zipfile.ZipFile(file) as archive:
            whole = sum(member.file_size for member in archive.infolist())
        if whole > _INFLATED * file.stat().st_size:
            raise UserError(f"{file.name} would be {whole} bytes. It was not opened.", _HINT)
        with np.load(io.BytesIO(file.read_bytes())) as held:
            names = ("images", "clean", "ids", "labels", "predictions", "correct", "space", "mean", "std")
            arrays = {name: held[name] for name in names}
    shape = arrays["images"].shape
    alike = all(len(arrays[name]) == shape[0] for name in ("ids", "labels", "predictions", "correct"))
    if len(shape) != 4 or arrays["clean"].shape != shape or not alike:
        raise UserError(f"{file.name} holds other arrays than a run keeps.", _HINT)
    return arrays


def _not_recorded(arrays: dict[str, np.ndarray], rows: pd.DataFrame) -> Iterator[AtOdds]:
    columns = (rows[name].to_numpy().astype(int).tolist() for name in ("label", "prediction", "correct"))
    known = dict(zip(map(str, rows["sample_id"]), zip(*columns, strict=True), strict=True))
    for place, sample in enumerate(map(str, arrays["ids"])):
        if sample not in known:
            yield AtOdds("", sample, "ids", "a sample", "none of the records'")
            continue
        for name, recorded in zip(("labels", "predictions", "correct"), known[sample], strict=True):
            said = int(arrays[name][place])
            if said != recorded:
                yield AtOdds("", sample, name, str(said), str(recorded))


def _too_far(arrays: dict[str, np.ndarray], threat: AttackThreat) -> Iterator[AtOdds]:
    norm = threat.settings.norm
    eps = float(threat.eps)
    clean = arrays["clean"].astype(np.float64)
    if str(arrays["space"]) == "normalized":
        clean = (clean - arrays["mean"].reshape(1, -1, 1, 1)) / arrays["std"].reshape(1, -1, 1, 1)
    change = (arrays["images"].astype(np.float64) - clean).reshape(len(clean), -1)
    distance = np.linalg.norm(change, {"Linf": np.inf, "L2": 2, "L1": 1}[norm], axis=1)
    for place in np.flatnonzero(~(distance <= eps + 1e-4 * max(1.0, eps))):
        yield AtOdds("", str(arrays["ids"][place]), "images", f"{distance[place]:.6g} away", f"at most {eps:.6g}")


def _pixels(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """The images as RGB in [0, 1]."""
    if str(arrays["space"]) != "normalized":
        return arrays["images"]
    seen: np.ndarray = arrays["images"] * arrays["std"].reshape(1, -1, 1, 1) + arrays["mean"].reshape(1, -1, 1, 1)
    return seen


def _png(file: Path) -> np.ndarray:
    from PIL import Image  # which only a bundle with images needs

    with boundary(file, _HINT), Image.open(file) as image:
        return np.asarray(image.convert("RGB"), dtype=np.float64) / 255


def _is_one_of(image: np.ndarray, seen: np.ndarray) -> bool:
    if image.transpose(2, 0, 1).shape != seen.shape[1:]:
        return False
    differ = np.abs(np.clip(seen, 0, 1) - image.transpose(2, 0, 1)).reshape(len(seen), -1).max(axis=1)
    return bool((differ <= _ONE_LEVEL).any())
