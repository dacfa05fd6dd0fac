"""The filters of corruptions: NumPy alone, float32 images (h, w, channels). What is flat stays as it is."""

import functools
import math

import numpy as np


def blur_disk(image: np.ndarray, radius: float, sigma: float) -> np.ndarray:
    """Correlates with a disk (`make_disk`), by FFT; beyond the border is the mirror image (reflect 101)."""
    reach = len(make_disk(radius, sigma)) // 2
    padded = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), 'reflect')
    shape = padded.shape[:2]
    spectrum = np.fft.rfft2(padded, axes=(0, 1)) * _transform_disk(radius, sigma, shape)
    return np.fft.irfft2(spectrum, s=shape, axes=(0, 1))[2 * reach :, 2 * reach :]


@functools.lru_cache(maxsize=16)
def _transform_disk(radius: float, sigma: float, shape: tuple[int, int]) -> np.ndarray:
    return np.fft.rfft2(make_disk(radius, sigma), s=shape)[..., None]  # which is symmetric: no need to turn it


def make_disk(radius: float, sigma: float) -> np.ndarray:
    """Makes the kernel of a lens out of focus, float32 (n, n): a disk smoothed by a Gaussian.

    The Gaussian has three taps, from radius 9 on five.
    """
    reach, taps = (8, 3) if radius <= 8 else (int(radius), 5)
    places = np.arange(-reach, reach + 1)
    disk = (places[:, None] ** 2 + places**2 <= radius**2).astype(np.float64)
    padded, smooth = np.pad(disk / disk.sum(), taps // 2, 'reflect'), make_gaussian(sigma, taps // 2)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (taps, taps))
    return np.einsum('yxij,i,j->yx', windows, smooth, smooth).astype(np.float32)


def make_gaussian(sigma: float, reach: int) -> np.ndarray:
    """Makes float64 (2 * reach + 1,): exp(-x^2 / (2 sigma^2)), with a sum of 1."""
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2) if reach else np.ones(1)
    return weights / weights.sum()


def blur_gaussian(image: np.ndarray, sigma: float) -> np.ndarray:
    """Smooths rows and columns by a Gaussian of four sigma to either side; beyond the border is its last pixel."""
    weights = make_gaussian(sigma, reach := int(4 * sigma + 0.5)).astype(np.float32)
    for axis in (0, 1):
        padding = [(reach, reach) if axis == other else (0, 0) for other in range(image.ndim)]
        padded, whole = np.pad(image, padding, 'edge'), [slice(None)] * image.ndim
        total = np.zeros(image.shape, np.float32)
        for i, weight in enumerate(weights):
            whole[axis] = slice(i, i + image.shape[axis])
            total += padded[tuple(whole)] * weight
        image = total
    return image


@functools.lru_cache(maxsize=16)
def make_smoother(side: int, sigma: float) -> np.ndarray:
    """Makes float64 (side, side) S, of which S @ field @ S.T smooths by a Gaussian of three sigma.

    It is mirrored at the edges, their pixels twice (d c b a | a b c d | d c b a), however often it goes over them.
    """
    reach = int(3 * sigma + 0.5)
    smoother = np.zeros((side, side))
    for offset, weight in zip(range(-reach, reach + 1), make_gaussian(sigma, reach), strict=True):
        np.add.at(smoother, (np.arange(side), mirror(np.arange(side) + offset, side, twice=True)), weight)
    return smoother


def mirror(places: np.ndarray, side: int, *, twice: bool) -> np.ndarray:
    """Brings whole places beyond 0..side - 1 back by mirrors at both edges; `twice`: an edge is its own neighbour."""
    period = 2 * side if twice else 2 * side - 2
    places = places % period
    return np.minimum(places, (2 * side - 1 if twice else period) - places)


def sample_bilinear(image: np.ndarray, y: np.ndarray, x: np.ndarray, *, twice: bool) -> np.ndarray:
    """Reads an image between its pixels, at y and x (h, w) each; `twice` as in `mirror`."""
    height, width, channels = image.shape
    top, left = np.floor(y), np.floor(x)
    down, right = ((y - top)[..., None].astype(np.float32), (x - left)[..., None].astype(np.float32))
    top, left = top.astype(np.int64), left.astype(np.int64)
    rows = [mirror(top + step, height, twice=twice) * width for step in (0, 1)]
    columns = [mirror(left + step, width, twice=twice) for step in (0, 1)]
    pixels = image.reshape(-1, channels)
    upper, lower = ([pixels.take(row + column, axis=0) for column in columns] for row in rows)
    above = upper[0] + right * (upper[1] - upper[0])
    return above + down * (lower[0] + right * (lower[1] - lower[0]) - above)


def zoom_centre(image: np.ndarray, factor: float, side: int) -> np.ndarray:
    """Enlarges the centre of a square image bilinearly by `factor`, to `side`; the first and last pixels stay them.

    The centre is that of `ceil(side / factor)` pixels; of what it becomes the centre is kept.
    """
    low, high, weights = _place_zoom(len(image), factor, side)
    rows = image[low] + weights[:, None, None] * (image[high] - image[low])
    columns = rows[:, low]
    return columns + weights[:, None] * (rows[:, high] - columns)


@functools.lru_cache(maxsize=256)
def _place_zoom(given: int, factor: float, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns for each row of a zoomed image the row above, that below, and the weight of the latter."""
    crop = math.ceil(side / factor)
    first, size = (given - crop) // 2, round(crop * factor)
    trim = (size - side) // 2
    places = np.arange(trim, trim + side) * ((crop - 1) / max(size - 1, 1))
    low = np.minimum(np.floor(places).astype(np.int64), crop - 1)
    return first + low, first + np.minimum(low + 1, crop - 1), (places - low).astype(np.float32)


def blur_motion(image: np.ndarray, radius: int, sigma: float, angle: float) -> np.ndarray:
    """Smears along a line of `angle` degrees, to one side, by half a Gaussian of 2 * radius + 1 whole pixels.

    As ImageMagick's MotionBlurImage; beyond the border is its last pixel.
    """
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-0.5 * (steps / sigma) ** 2)
    weights = (weights / weights.sum()).astype(np.float32)
    turn = math.radians(angle)
    down, right = (np.ceil(steps * part - 0.5).astype(int) for part in (math.sin(turn), math.cos(turn)))
    top, left = -min(down.min(), 0), -min(right.min(), 0)
    padding = [(top, max(down.max(), 0)), (left, max(right.max(), 0)), (0, 0)]
    padded, (height, width, _) = np.pad(image, padding, 'edge'), image.shape
    total = np.zeros(image.shape, np.float32)
    for weight, y, x in zip(weights, top + down, left + right, strict=True):
        total += padded[y : y + height, x : x + width] * weight
    return total


def make_plasma(random: np.random.Generator, side: int, decay: float) -> np.ndarray:
    """Makes clouds, float64 (side, side) in 0..1, by the diamond-square algorithm on a torus; `side` a power of two.

    Each middle is the mean of its four corners plus what is uniform in -w^2..w^2, w 100 and divided by `decay` for
    each halving.
    """
    clouds, step, wobble = np.zeros((side, side)), side, 100.0
    while step >= 2:
        half = step // 2

        def mean(corners: np.ndarray, wobble: float = wobble) -> np.ndarray:
            return corners / 4 + wobble * random.uniform(-wobble, wobble, corners.shape)

        corners = clouds[::step, ::step]
        pairs = corners + np.roll(corners, -1, axis=0)
        clouds[half::step, half::step] = mean(pairs + np.roll(pairs, -1, axis=1))
        middles = clouds[half::step, half::step]
        for axis, place in ((0, np.s_[::step, half::step]), (1, np.s_[half::step, ::step])):
            clouds[place] = mean(middles + np.roll(middles, 1, axis) + corners + np.roll(corners, -1, 1 - axis))
        step, wobble = half, wobble / decay
    clouds -= clouds.min()
    return clouds / clouds.max()
