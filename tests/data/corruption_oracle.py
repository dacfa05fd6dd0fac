"""The corruptions as their definitions say them, one value or one SciPy filter at a time, in float64 and 0..1.

Written from Hendrycks and Dietterich's definitions; what is drawn is asked of `random` in the order in which
alexnet_jax.data.corruptions asks. Each gives float64 0..255 before it is cut to whole numbers.
"""

import colorsys
import io
import math

import numpy as np
from PIL import Image
from scipy import ndimage


def gaussian_noise(x, c, random):
    return x + c * random.standard_normal(x.shape, np.float32)


def shot_noise(x, c, random):
    return random.poisson(x * c) / c


def impulse_noise(x, c, random):
    out = x.copy()
    for place, draw in np.ndenumerate(random.random(x.shape, np.float32)):
        if draw < c:
            out[place] = float(draw < c / 2)
    return out


def defocus_blur(x, c, random):
    radius, sigma = c
    reach, taps = (8, 3) if radius <= 8 else (radius, 5)
    disk = np.array(
        [[float(i * i + j * j <= radius**2) for i in range(-reach, reach + 1)] for j in range(-reach, reach + 1)]
    )
    disk = ndimage.gaussian_filter(disk / disk.sum(), sigma, mode='mirror', radius=taps // 2)
    return np.stack([ndimage.correlate(x[..., i], disk, mode='mirror') for i in range(3)], axis=-1)


def smooth(x, sigma):
    return ndimage.gaussian_filter(x, (sigma, sigma, 0), mode='nearest', truncate=4)


def cut(x):
    return np.floor(x * 255 + 1e-3).astype(np.uint8)


def glass_blur(x, c, random):
    sigma, reach, times = c
    pixels, side = cut(smooth(x, sigma)), len(x)
    first, last = reach + 1, side - reach
    for _ in range(times):
        dx, dy = random.integers(-reach, reach, (2, last - first + 1, last - first + 1))
        for h in range(last, first - 1, -1):
            for w in range(last, first - 1, -1):
                there = (h + dy[h - first, w - first], w + dx[h - first, w - first])
                pixels[h, w], pixels[there] = pixels[there], pixels[h, w]  # of views: no swap
    return smooth(pixels / 255, sigma)


def smear(x, radius, sigma, angle):
    weights = [math.exp(-(i**2) / (2 * sigma**2)) for i in range(2 * radius + 1)]
    out = np.zeros(x.shape)
    for i, weight in enumerate(weights):
        down, right = (
            math.ceil(i * part - 0.5) for part in (math.sin(math.radians(angle)), math.cos(math.radians(angle)))
        )
        rows, columns = (np.clip(np.arange(len(x)) + offset, 0, len(x) - 1) for offset in (down, right))
        out += weight / sum(weights) * x[rows][:, columns]
    return np.rint(out * 255) / 255


def motion_blur(x, c, random):
    return smear(x, *c, random.uniform(-45, 45))


def zoom(x, factor):
    side = len(x)
    crop = math.ceil(side / factor)
    first = (side - crop) // 2
    large = ndimage.zoom(x[first : first + crop, first : first + crop], (factor, factor, 1), order=1)
    trim = (len(large) - side) // 2
    return large[trim : trim + side, trim : trim + side]


def zoom_blur(x, c, random):
    factors = np.arange(1, *c)
    return (x + sum(zoom(x, factor) for factor in factors)) / (len(factors) + 1)


def snow(x, c, random):
    mean, deviation, factor, least, radius, sigma, weight = c
    flakes = zoom(random.normal(mean, deviation, (len(x), len(x), 1)), factor)
    flakes[flakes < least] = 0
    flakes = smear(cut(np.clip(flakes, 0, 1)) / 255, radius, sigma, random.uniform(-135, -45))
    grey = 0.299 * x[..., 0] + 0.587 * x[..., 1] + 0.114 * x[..., 2]
    white = np.maximum(x, grey[..., None] * 1.5 + 0.5)
    return weight * x + (1 - weight) * white + flakes + flakes[::-1, ::-1]


def frost(x, c, random, pictures):
    picture, side = pictures[random.integers(len(pictures))], len(x)
    if side == 32:
        picture = picture[2::5, 2::5]
    top = random.integers(picture.shape[0] - side)
    left = random.integers(picture.shape[1] - side)
    return c[0] * x + c[1] * picture[top : top + side, left : left + side] / 255


def fog(x, c, random):
    side, step, wobble = len(x), len(x), 100
    clouds = np.zeros((side, side))
    while step >= 2:
        half, centres = step // 2, range(step // 2, side, step)
        shape = (side // step, side // step)
        noise = wobble * random.uniform(-wobble, wobble, shape)
        for y in centres:
            for x_ in centres:
                corners = [clouds[(y + i) % side, (x_ + j) % side] for i in (-half, half) for j in (-half, half)]
                clouds[y, x_] = sum(corners) / 4 + noise[y // step, x_ // step]
        for top, left in ((0, half), (half, 0)):
            noise = wobble * random.uniform(-wobble, wobble, shape)
            for y in range(top, side, step):
                for x_ in range(left, side, step):
                    near = ((y - half, x_), (y + half, x_), (y, x_ - half), (y, x_ + half))
                    corners = [clouds[i % side, j % side] for i, j in near]
                    clouds[y, x_] = sum(corners) / 4 + noise[y // step, x_ // step]
        step, wobble = half, wobble / c[1]
    clouds = (clouds - clouds.min()) / (clouds.max() - clouds.min())
    return (x + c[0] * clouds[..., None]) * x.max() / (x.max() + c[0])


def brightness(x, c, random):
    out = np.empty(x.shape)
    for place in np.ndindex(x.shape[:2]):
        hue, saturation, value = colorsys.rgb_to_hsv(*x[place])
        out[place] = colorsys.hsv_to_rgb(hue, saturation, min(value + c, 1))
    return out


def contrast(x, c, random):
    return (x - x.mean(axis=(0, 1))) * c + x.mean(axis=(0, 1))


def elastic_transform(x, c, random):
    reach, sigma, affine = c
    side = len(x)
    middle, half = side // 2, side // 3
    corners = np.array([(middle + half, middle + half), (middle + half, middle - half), (middle - half, middle - half)])
    moved = corners + random.uniform(-affine, affine, corners.shape)
    # There and back between places (x, y): A @ corner + b = moved.
    a = np.linalg.solve(corners[:2] - corners[2], moved[:2] - moved[2]).T
    back = np.linalg.inv(a)
    offset = corners[2] - back @ moved[2]
    out = np.stack(
        [ndimage.affine_transform(x[..., i].T, back, offset, order=1, mode='mirror').T for i in range(3)], axis=-1
    )
    if reach:
        dx, dy = (
            reach * ndimage.gaussian_filter(random.uniform(-1, 1, (side, side)), sigma, mode='reflect', truncate=3)
            for _ in 'xy'
        )
        y, x_ = np.mgrid[:side, :side]
        places = [y + dy, x_ + dx]
        out = np.stack(
            [ndimage.map_coordinates(out[..., i], places, order=1, mode='reflect') for i in range(3)], axis=-1
        )
    return out


def pixelate(x, c, random):
    side = len(x)
    small = Image.fromarray(cut(x)).resize((int(side * c), int(side * c)), Image.Resampling.BOX)
    places = ((np.arange(side) + 0.5) * (int(side * c) / side)).astype(int)  # a larger pixel each is in
    return np.asarray(small)[places][:, places] / 255


def jpeg_compression(x, c, random):
    file = io.BytesIO()
    Image.fromarray(cut(x)).save(file, 'JPEG', quality=c)
    return np.asarray(Image.open(file)) / 255
