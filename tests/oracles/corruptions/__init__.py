"""The nineteen corruptions for one picture, written from their definition with numpy, scipy, scikit-image and Pillow.

They share no code with the package and take their random numbers as arguments. A picture is (height, width, 3) uint8;
the result is float64 levels *before* the original's truncating cast, unless its own tools already gave 8-bit levels.
`constants.json` holds the severities, read out of the original generators by a script.
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage
from scipy.stats import poisson
from skimage.color import hsv2rgb, rgb2hsv

TIE = 2**-9
"""Where the definition truncates on the way, values this little below a whole level count as that level."""

CONSTANTS = json.loads((Path(__file__).parent / "constants.json").read_text())["constants"]


def _shown(image):
    return np.clip(image, 0, 1) * 255


def _blurred(image, sigma, mode="nearest", truncate=4.0):
    sigmas = (sigma, sigma) + (0,) * (image.ndim - 2)
    return ndimage.gaussian_filter(image, sigmas, mode=mode, truncate=truncate)


def gaussian_noise(picture, c, normal):
    return _shown(picture / 255 + c * normal)


def shot_noise(picture, c, uniform):
    """The smallest count whose distribution function exceeds the draw."""
    below = poisson.cdf(np.arange(c), np.arange(256)[:, None] / 255 * c)
    return _shown((below[picture] <= uniform[..., None]).sum(-1) / c)


def impulse_noise(picture, c, uniform):
    noisy = picture / 255
    noisy[uniform < c] = 0
    noisy[uniform < c / 2] = 1
    return _shown(noisy)


def speckle_noise(picture, c, normal):
    image = picture / 255
    return _shown(image + image * normal * c)


def gaussian_blur(picture, c):
    return _shown(_blurred(picture / 255, c))


def defocus_blur(picture, c):
    radius, sigma = c
    half, reach = (8, 1) if radius <= 8 else (radius, 2)
    grid = np.arange(-half, half + 1)
    disk = np.array([[float(x * x + y * y <= radius * radius) for x in grid] for y in grid])
    disk /= disk.sum()
    soft = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    soft /= soft.sum()
    for axis in (0, 1):
        disk = ndimage.correlate1d(disk, soft, axis=axis, mode="mirror")
    channels = [ndimage.correlate(picture[..., channel] / 255, disk, mode="mirror") for channel in range(3)]
    return _shown(np.stack(channels, -1))


def glass_blur(picture, c, uniforms):
    """The walk itself, pixel by pixel. `uniforms` holds one (height, width) for each round."""
    sigma, reach, rounds = c
    height, width = picture.shape[:2]
    image = np.uint8(_blurred(picture / 255, sigma) * 255 + TIE)
    for uniform in uniforms[:rounds]:
        for row in range(height - reach, reach, -1):
            for column in range(width - reach, reach, -1):
                down, right = divmod(int(uniform[row, column] * (2 * reach) ** 2), 2 * reach)
                image[row, column] = image[row + down - reach, column + right - reach]
    return _shown(_blurred(image / 255, sigma))


def _motion_blurred(image, radius, sigma, degrees):
    """ImageMagick's: weights fall off along a ray, the picture's border pixels go on outside."""
    height, width = image.shape[:2]
    count = 2 * radius + 1
    weights = np.exp(-(np.arange(count) ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    total = np.zeros(image.shape)
    for step in range(count):
        rows = np.arange(height) + np.ceil(step * np.sin(np.radians(degrees)) - 0.5).astype(int)
        columns = np.arange(width) + np.ceil(step * np.cos(np.radians(degrees)) - 0.5).astype(int)
        total += weights[step] * image[np.ix_(rows.clip(0, height - 1), columns.clip(0, width - 1))]
    return total


def motion_blur(picture, c, uniform):
    return _motion_blurred(picture.astype(float), *c, -45 + 90 * float(uniform))


def _zoomed(image, factor):
    height, width = image.shape[:2]
    rows, columns = int(np.ceil(height / factor)), int(np.ceil(width / factor))
    top, left = (height - rows) // 2, (width - columns) // 2
    factors = (factor, factor) + (1,) * (image.ndim - 2)
    # Not the default "constant": a coordinate of the last row can exceed it by rounding, and would then be black.
    large = ndimage.zoom(image[top : top + rows, left : left + columns], factors, order=1, mode="nearest")
    top, left = (large.shape[0] - height) // 2, (large.shape[1] - width) // 2
    return large[top : top + height, left : left + width]


def zoom_blur(picture, c):
    image = picture / 255
    return _shown((image + sum(_zoomed(image, factor) for factor in c)) / (len(c) + 1))


def snow(picture, c, normal, uniform):
    """`normal` holds the draws of the visible centre."""
    mean, deviation, zoom, threshold, radius, sigma, share = c
    height, width = picture.shape[:2]
    layer = np.zeros((height, width))
    top, left = (height - normal.shape[0]) // 2, (width - normal.shape[1]) // 2
    layer[top : top + normal.shape[0], left : left + normal.shape[1]] = mean + deviation * normal
    layer = _zoomed(layer, zoom)
    layer[layer < threshold] = 0
    layer = np.floor(np.clip(layer, 0, 1) * 255 + TIE)
    layer = np.floor(_motion_blurred(layer, radius, sigma, -135 + 90 * float(uniform)) + TIE)[..., None] / 255
    image = picture / 255
    gray = (image @ np.array((0.299, 0.587, 0.114)))[..., None]
    image = share * image + (1 - share) * np.maximum(image, gray * 1.5 + 0.5)
    return _shown(image + layer + np.rot90(layer, k=2))


def frost(picture, c, uniform, overlays):
    keep, add = c
    height, width = picture.shape[:2]
    overlay = overlays[int(uniform[0] * 5)]
    top = int(uniform[1] * (overlay.shape[0] - height))
    left = int(uniform[2] * (overlay.shape[1] - width))
    return np.clip(keep * picture + add * overlay[top : top + height, left : left + width], 0.0, 255)


def fog(picture, c, uniform):
    """The diamond-square algorithm, one point at a time, on a torus of `uniform`'s size."""
    weight, decay = c
    side = len(uniform)
    heights = np.zeros((side, side))
    step, wibble = side, 100.0

    def middle(points, row, column):
        mean = sum(heights[r % side, s % side] for r, s in points) / 4
        return mean + wibble * wibble * (2 * uniform[row, column] - 1)

    while step >= 2:
        half = step // 2
        for row in range(half, side, step):
            for column in range(half, side, step):
                corners = [(row + a * half, column + b * half) for a in (-1, 1) for b in (-1, 1)]
                heights[row, column] = middle(corners, row, column)
        for row in range(0, side, half):
            for column in range(half if (row // half) % 2 == 0 else 0, side, step):
                corners = [(row - half, column), (row + half, column), (row, column - half), (row, column + half)]
                heights[row, column] = middle(corners, row, column)
        step, wibble = half, wibble / decay
    heights = (heights - heights.min()) / (heights.max() - heights.min())
    image = picture / 255
    brightest = image.max()
    foggy = image + weight * heights[: image.shape[0], : image.shape[1], None]
    return _shown(foggy * brightest / (brightest + weight))


def brightness(picture, c):
    hsv = rgb2hsv(picture / 255)
    hsv[..., 2] = np.clip(hsv[..., 2] + c, 0, 1)
    return _shown(hsv2rgb(hsv))


def saturate(picture, c):
    hsv = rgb2hsv(picture / 255)
    hsv[..., 1] = np.clip(hsv[..., 1] * c[0] + c[1], 0, 1)
    return _shown(hsv2rgb(hsv))


def contrast(picture, c):
    image = picture / 255
    mean = image.mean((0, 1))
    return _shown((image - mean) * c + mean)


def elastic_transform(picture, c, corner_draws, field_draws):
    """`corner_draws` (3, 2) and `field_draws` (2, height, width) are uniform on [0, 1)."""
    strength, sigma, jitter = c
    height, width = picture.shape[:2]
    middle = np.array((width // 2, height // 2), dtype=float)
    third = min(height, width) // 3
    old = np.array((middle + third, middle + np.array((third, -third)), middle - third))
    new = old + jitter * (2 * corner_draws - 1)
    # x_old = a x_new + b y_new + c, through three points
    system = np.column_stack((new, np.ones(3)))
    to_x, to_y = np.linalg.solve(system, old[:, 0]), np.linalg.solve(system, old[:, 1])
    y, x = np.mgrid[:height, :width].astype(float)
    source_x, source_y = to_x[0] * x + to_x[1] * y + to_x[2], to_y[0] * x + to_y[1] * y + to_y[2]
    image = _sampled(picture / 255, source_y, source_x, "mirror")
    if strength:
        dx, dy = (strength * _blurred(2 * draw - 1, sigma, "reflect", 3.0) for draw in field_draws)
        image = _sampled(image, y + dy, x + dx, "reflect")
    return _shown(image)


def _sampled(image, rows, columns, mode):
    channels = [ndimage.map_coordinates(image[..., k], (rows, columns), order=1, mode=mode) for k in range(3)]
    return np.stack(channels, -1)


def pixelate(picture, c):
    height, width = picture.shape[:2]
    small = Image.fromarray(picture).resize((int(width * c), int(height * c)), Image.Resampling.BOX)
    return np.asarray(small.resize((width, height), Image.Resampling.BOX)).astype(float)


def jpeg_compression(picture, c):
    from io import BytesIO

    file = BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=c)
    with Image.open(file) as decoded:
        return np.asarray(decoded).astype(float)


def spatter(picture, c, normal):
    mean, deviation, sigma, threshold, strength, mud = c
    image = picture / 255
    liquid = _blurred(mean + deviation * normal, sigma)
    if mud:
        cover = _blurred((liquid > threshold).astype(float), strength)[..., None]
        cover[cover < 0.8] = 0
        return _shown(image * (1 - cover) + cover * np.array((63, 42, 20)) / 255)
    liquid[liquid < threshold] = 0
    liquid = np.floor(np.clip(liquid * 255, 0, 255) + TIE)
    distance = np.minimum(chamfer_distance(canny(liquid, 50, 150)), 20)
    distance = np.floor(_mean3(distance) + TIE / 16).astype(int)
    emboss = np.array(((-2, -1, 0), (-1, 1, 1), (0, 1, 2)))
    relief = np.clip(ndimage.correlate(equalized(distance), emboss, mode="mirror"), 0, 255)
    shine = liquid * np.floor(_mean3(relief.astype(float)) + 0.5)
    if shine.max() == 0:
        return _shown(image)
    return _shown(image + strength * shine[..., None] / shine.max() * np.array((175, 238, 238)) / 255)


def _mean3(plane):
    return ndimage.correlate(plane, np.full((3, 3), 1 / 9), mode="mirror")


def canny(levels, low, high):
    """Edges of 8-bit levels: largest |dx| + |dy| along the gradient, above `low`, linked to one above `high`."""
    dx = np.rint(ndimage.sobel(levels, axis=1, mode="nearest")).astype(int)
    dy = np.rint(ndimage.sobel(levels, axis=0, mode="nearest")).astype(int)
    size = np.pad(abs(dx) + abs(dy), 1)
    height, width = levels.shape
    kind = np.zeros((height, width), dtype=int)
    for row in range(height):
        for column in range(width):
            here = size[row + 1, column + 1]
            across, upright = abs(int(dx[row, column])), abs(int(dy[row, column])) << 15
            if upright < across * 13573:
                first, second, strict = (0, -1), (0, 1), False
            elif upright > across * 13573 + (across << 16):
                first, second, strict = (-1, 0), (1, 0), False
            else:
                slant = -1 if (dx[row, column] < 0) != (dy[row, column] < 0) else 1
                first, second, strict = (-1, -slant), (1, slant), True
            before = size[row + 1 + first[0], column + 1 + first[1]]
            after = size[row + 1 + second[0], column + 1 + second[1]]
            if here > low and here > before and (here > after if strict else here >= after):
                kind[row, column] = 2 if here > high else 1
    labels, count = ndimage.label(kind > 0, structure=np.ones((3, 3)))
    linked = np.zeros(count + 1, dtype=bool)
    linked[np.unique(labels[kind == 2])] = True
    linked[0] = False
    return linked[labels]


def chamfer_distance(marked):
    """Distance to the nearest marked pixel by Borgefors's two passes with 5 × 5 masks; large where there is none."""
    height, width = marked.shape
    distance = np.where(np.pad(marked, 2), 0.0, 1e6)
    mask = [(0, -1, 1.0), (-1, 0, 1.0), (-1, -1, 1.4), (-1, 1, 1.4)]
    mask += [(-2, -1, 2.1969), (-2, 1, 2.1969), (-1, -2, 2.1969), (-1, 2, 2.1969)]
    for sign in (1, -1):
        for row in range(2, height + 2)[::sign]:
            for column in range(2, width + 2)[::sign]:
                near = min(distance[row + sign * a, column + sign * b] + cost for a, b, cost in mask)
                distance[row, column] = min(distance[row, column], near)
        outside = np.ones_like(distance, dtype=bool)
        outside[2:-2, 2:-2] = False
        distance[outside] = 1e6
    return distance[2:-2, 2:-2]


def equalized(levels):
    """Histogram equalisation: the lowest level becomes 0, the highest 255; a flat picture stays."""
    counts = np.bincount(levels.ravel(), minlength=256)
    lowest = np.flatnonzero(counts)[0]
    if counts[lowest] == levels.size:
        return levels
    ranks = np.cumsum(counts) - counts[lowest]
    return np.rint(255 / (levels.size - counts[lowest]) * ranks[levels]).clip(0, 255)
