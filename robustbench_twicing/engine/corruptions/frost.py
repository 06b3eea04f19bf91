"""Pictures of frost to lay over images: the original's photographs where they are to be had, else our own drawing.

The original's six photographs are not ours to ship. They are used from a folder that the user names, or from the
package imagecorruptions where it is installed. Without either, frost is drawn: crystals that branch at 60 degrees.
"""

import hashlib
import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt, gaussian_filter, zoom
from torch.nn import functional

from robustbench_twicing.errors import UserError
from robustbench_twicing.seeding import Draws
from robustbench_twicing.spec.corruptions import Number

FROST_FILES = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")
"""What the original draws from (make_imagenet_c.py). Its list goes on with frost6.jpg, which its draw never reaches."""


@dataclass(frozen=True, eq=False)
class FrostPictures:
    """Five pictures of frost, and where they come from."""

    source: str
    """`drawn`, or the folder of photographs. Results with different pictures are different corruptions."""
    fingerprint: str
    """First 12 hex digits of the SHA-256 of all pixels; `drawn-1` for drawn ones, which another machine may round
    differently by a level here and there."""
    pictures: tuple[torch.Tensor, ...]
    """Each (3, height, width), float32, levels from 0 to 255."""

    @lru_cache(maxsize=8)  # noqa: B019 - there are only a few of these objects, and they live as long as the process
    def fitted(self, scale: Number, height: int, width: int, device: torch.device) -> tuple[torch.Tensor, ...]:
        """The pictures scaled by `scale`, or by more where an image of (height, width) would not fit with some room.

        Bilinear without smoothing, as the original shrinks them for small images (OpenCV's resize).
        """
        fitted = []
        for picture in self.pictures:
            needed = max(1.1 * height / picture.shape[1], 1.1 * width / picture.shape[2])
            enough = scale if min(picture.shape[1] * scale - height, picture.shape[2] * scale - width) >= 1 else needed
            if enough != 1:
                picture = functional.interpolate(
                    picture[None], scale_factor=enough, mode="bilinear", recompute_scale_factor=False
                )[0]
                picture = picture.add_(0.5).floor_()
            fitted.append(picture.to(device))
        return tuple(fitted)


def frost_pictures(frost_dir: str | Path | None = None) -> FrostPictures:
    """The pictures in `frost_dir`; without one, those of an installed imagecorruptions, else drawn ones.

    `frost_dir="drawn"` takes the drawn ones wherever it runs. Raises `UserError` if a folder lacks a picture.
    """
    folder = _installed() if frost_dir is None else Path(frost_dir).expanduser()
    if folder is None or frost_dir == "drawn":
        return _drawn()
    missing = [name for name in FROST_FILES if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"No {', '.join(missing)} in {folder}.",
            f"Expected the original's pictures {', '.join(FROST_FILES)}, as in ImageNet-C/create_c of "
            'hendrycks/robustness. frost_dir="drawn" needs no pictures.',
        )
    return _photographs(folder)


def _installed() -> Path | None:
    # imagecorruptions itself fails to import on today's libraries, so only its place is asked for.
    found = importlib.util.find_spec("imagecorruptions")
    folder = Path(found.origin).parent / "frost" if found is not None and found.origin else None
    return folder if folder is not None and all((folder / name).is_file() for name in FROST_FILES) else None


@lru_cache(maxsize=4)
def _photographs(folder: Path) -> FrostPictures:
    from PIL import Image

    arrays = []
    for name in FROST_FILES:
        with Image.open(folder / name) as picture:
            arrays.append(np.array(picture.convert("RGB")))
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(repr(array.shape).encode() + array.tobytes())
    return FrostPictures(str(folder), digest.hexdigest()[:12], tuple(_tensor(array) for array in arrays))


def _tensor(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(picture).permute(2, 0, 1).to(torch.float32).contiguous()


# --- drawing ---------------------------------------------------------------------------------------------------------

# For each picture: height and width, crystals, length of their arms, pixels between two branches, and the mean and
# standard deviation that the result gets in red, green and blue. The colour statistics are those of the original's
# photographs (measured), so that drawn frost dims and whitens images about as much.
_SKETCHES = (
    (600, 900, 60, 110.0, 9.0, (77.7, 149.1, 165.7), (26.9, 16.5, 15.3)),
    (400, 600, 70, 70.0, 6.0, (200.8, 205.4, 214.5), (21.4, 22.1, 22.6)),
    (400, 600, 160, 40.0, 5.0, (137.6, 152.8, 165.2), (28.5, 28.5, 29.9)),
    (500, 660, 150, 50.0, 6.0, (112.4, 123.4, 134.8), (44.4, 43.3, 41.7)),
)


@lru_cache(maxsize=1)
def _drawn() -> FrostPictures:
    sketches = [_tensor(_sketch(index)) for index in range(len(_SKETCHES))]
    sketches.insert(1, sketches[1])  # the original's second and third picture are the same
    return FrostPictures("drawn", "drawn-1", tuple(sketches))


def _sketch(index: int) -> np.ndarray:
    """(height, width, 3) uint8: crystals of ice over clouds; the same on every machine, up to rounding.

    From each seed six arms grow; they carry branches at 60 degrees, and those carry branches again. A crystal ends
    where another seed is nearer, as frost on a pane does where two crystals meet.
    """
    height, width, seeds, length, spacing, mean, deviation = _SKETCHES[index]
    draws = Draws(0, (f"picture-{index}",), "frost-drawing")
    place, turn, shine = np.split(draws.uniform(0, (seeds, 4))[0].double().numpy(), (2, 3), axis=1)
    place = place * (height, width)
    bare = np.ones((height, width), dtype=bool)
    bare[tuple(place.astype(int).T)] = False
    nearest = distance_transform_edt(bare, return_distances=False, return_indices=True)
    owners = np.zeros((height, width), dtype=np.int64)
    owners[tuple(place.astype(int).T)] = np.arange(seeds)
    owners = owners[tuple(nearest)]

    crystal = np.repeat(np.arange(seeds), 6)
    angles = np.repeat(turn[:, 0], 6) * 2 * np.pi + np.tile(np.arange(6), seeds) * np.pi / 3
    start, lengths, weights = np.repeat(place, 6, axis=0), np.full(seeds * 6, length), np.full(seeds * 6, 1.0)
    ice = np.zeros((height, width))
    for _ in range(3):
        along, step = _spread(lengths, 0.7)
        rows, columns = (start[along] + _ahead(angles[along], step * 0.7)).astype(int).T
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        along, rows, columns = along[inside], rows[inside], columns[inside]
        own = owners[rows, columns] == crystal[along]
        np.maximum.at(ice, (rows[own], columns[own]), weights[along[own]])
        along, step = (np.tile(part, 2) for part in _spread(lengths, spacing))
        side = np.repeat((1, -1), len(along) // 2)
        start = start[along] + _ahead(angles[along], step * spacing)
        lengths = 0.5 * (lengths[along] - step * spacing)
        angles, weights, crystal = angles[along] + side * np.pi / 3, 0.8 * weights[along], crystal[along]
        spacing *= 0.6

    noise = draws.normal(1, (height, width))[0].double().numpy()
    clouds = zoom(draws.normal(2, (height // 50 + 1, width // 50 + 1))[0].double().numpy(), 50, order=3)[
        :height, :width
    ]
    ridges = gaussian_filter(ice, 0.6)
    layers = [ridges, gaussian_filter(ice, 4.0), gaussian_filter(noise, 0.7), shine[owners, 0], clouds]
    layers = [(layer - layer.mean()) / layer.std() for layer in layers]
    relief = sum(share * layer for share, layer in zip((1.0, 0.3, 0.3, 0.4, 0.7), layers, strict=True))
    # What differs between the colours is how much shows through the ice, which follows the clouds.
    coloured = relief[..., None] + clouds[..., None] * np.array((0.3, 0.0, -0.15))
    coloured = (coloured - coloured.mean((0, 1))) / coloured.std((0, 1))
    result: np.ndarray = (coloured * deviation + mean).round().clip(0, 255).astype(np.uint8)
    return result


def _spread(lengths: np.ndarray, spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """For points every `spacing` along each line: the line's index and the point's number, from 1."""
    counts = (lengths / spacing).astype(np.int64)
    lines = np.repeat(np.arange(len(lengths)), counts)
    return lines, np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + 1


def _ahead(angles: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """(points, 2): rows and columns gained by going `distance` at `angles`."""
    result: np.ndarray = np.stack((np.sin(angles), np.cos(angles)), axis=1) * distance[:, None]
    return result
