"""Weather: snow, frost, fog, brightness; and spatter on the lens."""

from functools import lru_cache

import numpy as np
import torch
from torch.nn import functional

from robustbench_twicing.engine.corruptions.filters import Planes, clipped_zoom, motion_blur, zoom_window
from robustbench_twicing.engine.corruptions.filters import gaussian_blur as blur
from robustbench_twicing.engine.corruptions.frost import FrostPictures
from robustbench_twicing.engine.corruptions.levels import truncate_
from robustbench_twicing.seeding import Draws
from robustbench_twicing.spec.corruptions import Number
from robustbench_twicing.tensors import Images


def snow(levels: Images, flakes: tuple[Number, ...], draws: Draws) -> Images:
    """Whitens the picture and adds falling flakes, twice: as drawn and turned by 180 degrees.

    Flakes are normal draws, enlarged, kept above a threshold and blurred along a direction between 45 and 135 degrees.
    """
    mean, deviation, zoom, threshold, radius, sigma, share = flakes
    height, width = levels.shape[-2:]
    # Zooming shows only the centre, so no more than the centre is drawn.
    visible = (zoom_window(height, zoom), zoom_window(width, zoom))
    layer = clipped_zoom(draws.normal(0, visible, levels.device).mul_(deviation).add_(mean), zoom, height, width)
    layer = truncate_(layer.masked_fill_(layer < threshold, 0.0).mul_(255))[:, None]
    angles = draws.uniform(1, (1,))[:, 0].to(torch.float64) * 90 - 135
    layer = motion_blur(layer, radius, sigma, angles.tolist())
    white = _gray(levels).mul_(1.5).add_(0.5 * 255)
    whitened = torch.maximum(levels, white[:, None]).mul_(1 - share).add_(levels, alpha=share)
    return truncate_(whitened.add_(layer).add_(layer.flip(-2, -1)))


def _gray(levels: Images) -> Planes:
    """Luma as OpenCV's RGB2GRAY weighs it (ITU-R BT.601)."""
    red, green, blue = levels.unbind(1)
    return (red * 0.299).add_(green, alpha=0.587).add_(blue, alpha=0.114)


def frost(levels: Images, frost: tuple[Number, Number, Number], draws: Draws, pictures: FrostPictures) -> Images:
    """Adds a random window of one of five pictures of frost.

    Quirk kept: the original's `randint(5)` never reaches the last of its six files (and its second and third are the
    same picture).
    """
    keep, add, scale = frost
    height, width = levels.shape[-2:]
    overlays = pictures.fitted(scale, height, width, levels.device)
    added = torch.empty_like(levels)
    for row, (which, down, right) in zip(added, draws.uniform(0, (3,)).tolist(), strict=True):
        overlay = overlays[int(which * len(overlays))]
        # The last possible window is never taken, as with the original's randint.
        top = int(down * (overlay.shape[1] - height))
        left = int(right * (overlay.shape[2] - width))
        row.copy_(overlay[:, top : top + height, left : left + width])
    return truncate_(added.mul_(add).add_(levels, alpha=keep))


def fog(levels: Images, fog: tuple[Number, Number], draws: Draws) -> Images:
    """Adds a cloud (0 to 1, times `fog[0]`) and rescales so that the image's brightest value would stay.

    The map's side is the next power of two, as in the three originals (256 for 224, 64 for 64, 32 for 32).
    """
    weight, decay = fog
    height, width = levels.shape[-2:]
    side = 1 << (max(height, width) - 1).bit_length()
    clouds = _plasma(draws.uniform(0, (side, side), levels.device), decay)[:, None, :height, :width]
    brightest = levels.amax((1, 2, 3), keepdim=True)
    return truncate_(levels.add_(clouds, alpha=255 * weight).mul_(brightest / (brightest + 255 * weight)))


def _plasma(uniform: Planes, decay: Number) -> Planes:
    """A fractal height map from 0 to 1 by the diamond-square algorithm on a torus.

    Squares, then diamonds: each new point is the mean of four old ones plus a draw on ±roughness², where the roughness
    starts at 100 and falls by `decay` each time the step halves (so that the original's `wibble` counts twice).
    """
    heights = torch.zeros_like(uniform)
    wobbles = uniform.mul(2).sub_(1)
    step, roughness = uniform.shape[-1], 100.0
    while step >= 2:
        half = step // 2
        corners = heights[:, ::step, ::step]
        rows = corners + corners.roll(-1, 1)
        centres = (rows + rows.roll(-1, 2)).div_(4)
        centres += wobbles[:, half::step, half::step] * roughness**2
        heights[:, half::step, half::step] = centres
        for axis, place in (
            (1, (slice(None), slice(None, None, step), slice(half, None, step))),
            (2, (slice(None), slice(half, None, step), slice(None, None, step))),
        ):
            # Between two centres along one axis and two corners along the other.
            four = centres + centres.roll(1, axis) + corners + corners.roll(-1, 3 - axis)
            heights[place] = four.div_(4) + wobbles[place] * roughness**2
        step, roughness = half, roughness / decay
    low, high = heights.amin((1, 2), keepdim=True), heights.amax((1, 2), keepdim=True)
    return heights.sub_(low).div_(high - low)


def brightness(levels: Images, added: Number, draws: Draws) -> Images:
    """Adds to the value of HSV, up to 1. Hue and saturation stay, so the channels keep their ratios.

    The largest channel is rounded as the original rounds it, in float64: where `added` is a whole number of levels the
    sum is one too, and truncation then turns the last bit into a level.
    """
    value = levels.amax(1, keepdim=True)
    sums = np.clip(np.arange(256) / 255.0 + added, 0, 1)
    table = torch.from_numpy(np.trunc(sums * 255.0).astype(np.float32)).to(levels.device)
    brighter = (value + 255 * added).clamp_(max=255.0)
    scaled = levels * brighter.div_(value.clamp(min=1.0))
    return truncate_(torch.where(levels == value, table[value.to(torch.int64)], scaled))


def spatter(levels: Images, spatter: tuple[Number, Number, Number, Number, Number, str], draws: Draws) -> Images:
    """Drops of water (severities 1 to 3) or mud (4 and 5) on the lens: a blurred normal field above a threshold."""
    mean, deviation, sigma, threshold, strength, liquid = spatter
    field = draws.normal(0, levels.shape[-2:], levels.device).mul_(deviation).add_(mean)
    field = blur(field, sigma)
    if liquid == "mud":
        mud = blur((field > threshold).to(torch.float32), strength)[:, None]
        mud.masked_fill_(mud < 0.8, 0.0)
        brown = torch.tensor((63.0, 42.0, 20.0), device=levels.device).view(3, 1, 1)
        return truncate_(levels.addcmul_(brown - levels, mud))
    drops = truncate_(field.masked_fill_(field < threshold, 0.0).mul_(255))
    shine = drops * _relief(drops)
    shine = shine * (strength / shine.amax((1, 2), keepdim=True).clamp(min=1.0))
    # Pale turquoise. A picture without any drop stays as it is (the original would divide by zero).
    water = torch.tensor((175.0, 238.0, 238.0), device=levels.device).view(3, 1, 1)
    return truncate_(levels.addcmul_(shine[:, None], water))


# --- the relief of water drops: what the original asks OpenCV for ------------------------------------------------


def _relief(drops: Planes) -> Planes:
    """Light and shade of drops, as levels: distance to the drops' outline, equalised, embossed and smoothed."""
    distance = _distance(_outline(drops, 50, 150), 20)
    # Means of 9 distances come as close to a whole level as (2.2 - 2.1969) / 9 without being one.
    distance = _equalized(truncate_(_mean3(distance), tie=2.0**-13), 20)
    padded = functional.pad(distance[:, None], (1, 1, 1, 1), mode="reflect")[:, 0]
    height, width = drops.shape[-2:]
    embossed = torch.zeros_like(drops)
    for row, weights in enumerate(((-2, -1, 0), (-1, 1, 1), (0, 1, 2))):
        for column, weight in enumerate(weights):
            if weight:
                embossed.add_(padded[:, row : row + height, column : column + width], alpha=weight)
    return _mean3(embossed.clamp_(0, 255)).add_(0.5).floor_()


def _mean3(planes: Planes) -> Planes:
    """Mean of 3 × 3 pixels, mirrored at the border."""
    padded = functional.pad(planes[:, None], (1, 1, 1, 1), mode="reflect")[:, 0]
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    return (rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]).div_(9)


def _outline(levels: Planes, low: int, high: int) -> torch.Tensor:
    """Canny's edges (Canny 1986) of 8-bit levels as OpenCV finds them: Sobel 3 × 3, |dx| + |dy|, 8 neighbours.

    Bool, same shape. A pixel is an edge if its gradient exceeds `low`, is the largest along the gradient's direction
    (one of four), and it is linked through such pixels to one above `high`.
    """
    padded = functional.pad(levels[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    smooth = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    dx = smooth[..., 2:] - smooth[..., :-2]
    smooth = padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]
    dy = smooth[:, 2:] - smooth[:, :-2]
    falling = (dx < 0) == (dy < 0)
    size = dx.abs() + dy.abs()
    around = functional.pad(size, (1, 1, 1, 1))
    height, width = levels.shape[-2:]

    def near(down: int, right: int) -> Planes:
        return around[:, 1 + down : 1 + down + height, 1 + right : 1 + right + width]

    across, upright = dx.abs_(), dy.abs_()
    # OpenCV's tangents of 22.5 and 67.5 degrees are 13573 / 2^15 and that plus 2. Ties favour the lower right.
    tangent = 13573 / 2**15
    horizontal = upright < across * tangent
    vertical = upright > across * (tangent + 2)
    diagonal = (horizontal | vertical).logical_not_()
    peak = horizontal & (size > near(0, -1)) & (size >= near(0, 1))
    peak |= vertical & (size > near(-1, 0)) & (size >= near(1, 0))
    peak |= diagonal & falling & (size > near(-1, -1)) & (size > near(1, 1))
    peak |= diagonal & ~falling & (size > near(-1, 1)) & (size > near(1, -1))
    edges = peak & (size > high)
    weak = peak & (size > low) & ~edges
    while True:
        padded = functional.pad(edges, (1, 1, 1, 1))
        rows = padded[:, :-2] | padded[:, 1:-1] | padded[:, 2:]
        linked = weak & (rows[..., :-2] | rows[..., 1:-1] | rows[..., 2:])
        if not bool(linked.any()):
            return edges
        edges |= linked
        weak &= ~linked


def _distance(marked: torch.Tensor, limit: int) -> Planes:
    """Distance of each pixel to the nearest marked one, at most `limit`, in OpenCV's 5 × 5 chamfer metric.

    An offset's length grows with its horizontal part, so for each vertical part only the horizontally nearest marked
    pixel counts.
    """
    height, width = marked.shape[-2:]
    beside = torch.full(marked.shape, limit, dtype=torch.int32, device=marked.device).masked_fill_(marked, 0)
    step = 1
    while step < limit:  # horizontal distances, doubling the reach
        padded = functional.pad(beside, (step, step), value=limit)
        beside = torch.minimum(padded[..., :width], padded[..., 2 * step :]).add_(step).minimum(beside)
        step *= 2
    nearest = torch.full(marked.shape, float(limit), device=marked.device)
    rows = functional.pad(beside, (0, 0, limit, limit), value=limit)
    for dy, lengths in enumerate(_lengths(limit, marked.device)):
        dx = torch.minimum(rows[:, limit - dy : limit - dy + height], rows[:, limit + dy : limit + dy + height])
        torch.minimum(nearest, lengths.index_select(0, dx.flatten()).view(dx.shape), out=nearest)
    return nearest.clamp_(max=float(limit))


@lru_cache(maxsize=4)
def _lengths(limit: int, device: torch.device) -> torch.Tensor:
    """(limit, limit + 1): the length of (dy, dx) in steps of 1 straight, 1.4 diagonally and 2.1969 as a knight moves.

    The weights are Borgefors's (1986), as OpenCV has them for DIST_L2 and a mask of 5.
    """
    dy, dx = np.mgrid[:limit, : limit + 1]
    short, long = np.minimum(dx, dy), np.maximum(dx, dy)
    steep = 2.1969 * short + (long - 2 * short)
    flat = 2.1969 * (long - short) + 1.4 * (2 * short - long)
    return torch.from_numpy(np.where(long >= 2 * short, steep, flat).astype(np.float32)).to(device)


def _equalized(levels: Planes, top: int) -> Planes:
    """Histogram equalisation of whole levels from 0 to `top`, as OpenCV's equalizeHist: the lowest level becomes 0."""
    samples, pixels, bins = len(levels), levels[0].numel(), top + 1
    places = (levels.to(torch.int64) + torch.arange(samples, device=levels.device)[:, None, None] * bins).flatten()
    counts = torch.bincount(places, minlength=samples * bins).view(samples, bins)
    lowest = counts.gather(1, (counts > 0).to(torch.int64).argmax(1, keepdim=True))
    below = counts.cumsum(1)
    scale = 255.0 / (pixels - lowest).clamp(min=1).to(torch.float32)
    table = ((below - lowest).clamp(min=0).to(torch.float32) * scale).round_()
    # A flat picture stays as it is.
    table = torch.where(lowest == pixels, torch.arange(bins, dtype=torch.float32, device=levels.device), table)
    return table.flatten().index_select(0, places).view_as(levels)
