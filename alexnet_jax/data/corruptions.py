"""The fifteen corruptions of Hendrycks and Dietterich 2019, each a pure function of an image and a random stream.

The definitions are those of hendrycks/robustness 8190fe3, ImageNet-C/create_c/make_imagenet_c.py and make_cifar_c.py,
which published errors are of, and not those of the packages after it: they draw from NumPy's global stream, know no
CIFAR-10-C, and have another elastic_transform and frost. docs/evaluation.md says where pixels differ.
"""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from alexnet_jax.data import corruption_filters as filters
from alexnet_jax.data.corruption_constants import CONSTANTS, CORRUPTIONS, SIZES, load_frost

# The source cuts fractions off. What is a whole number but for float32's rounding stays that number.
_ROUNDING = 1e-3
_GREY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


def corrupt(image: np.ndarray, corruption: str, severity: int, random: np.random.Generator) -> np.ndarray:
    """Returns an image corrupted.

    Args:
      image: uint8 (side, side, 3) RGB, of one of SIZES, which says whose constants are taken.
      corruption: one of CORRUPTIONS.
      severity: one of SEVERITIES.
      random: what is drawn comes from it.

    Raises:
      InputError: the pictures of frost are not installed.
    """
    constants = CONSTANTS[SIZES[len(image)]][corruption][severity - 1]
    return _FUNCTIONS[corruption](image, constants, random)


def make_stream(seed: int, record: int, corruption: str, severity: int) -> np.random.Generator:
    """Makes the random stream of one image: no other has it, and it is the same in whatever thread, batch or host."""
    return np.random.default_rng([seed, record, CORRUPTIONS.index(corruption), severity])


def _to_pixels(values: np.ndarray) -> np.ndarray:
    """Cuts 0..255 to whole numbers."""
    return np.clip(values + _ROUNDING, 0, 255).astype(np.uint8)


def _gaussian_noise(image: np.ndarray, sigma: float, random: np.random.Generator) -> np.ndarray:
    return _to_pixels(image + 255 * np.float32(sigma) * random.standard_normal(image.shape, np.float32))


def _shot_noise(image: np.ndarray, photons: int, random: np.random.Generator) -> np.ndarray:
    return _to_pixels(random.poisson(image * (photons / 255)) * (255 / photons))


def _impulse_noise(image: np.ndarray, share: float, random: np.random.Generator) -> np.ndarray:
    """Makes a share of the values, each channel for itself, 0 or 255."""
    draws = random.random(image.shape, np.float32)
    return np.where(draws < share / 2, np.uint8(255), np.where(draws < share, np.uint8(0), image))


def _defocus_blur(image: np.ndarray, constants: tuple[float, float], _: Any) -> np.ndarray:
    return _to_pixels(filters.blur_disk(image.astype(np.float32), *constants))


def _glass_blur(image: np.ndarray, constants: tuple[float, int, int], random: np.random.Generator) -> np.ndarray:
    """Smooths, puts a near pixel in each one's place, and smooths again.

    The source means to swap two pixels, but what it reads are views: the one is copied over the other. So a pixel takes
    what the near one is by then, which those before it in the scan from the last corner may have changed. Each is thus
    looked up at the end of a chain, and all chains are followed at once, every look doubling how far.
    """
    sigma, reach, times = constants
    pixels = _to_pixels(filters.blur_gaussian(image.astype(np.float32), sigma))
    side = len(image)
    # Of the scan that goes down from side - reach to reach + 1, first rows, then columns.
    scanned = np.arange(reach + 1, side - reach + 1)
    y, x = np.meshgrid(scanned, scanned, indexing='ij')
    place, all_places = y * side + x, np.arange(side * side)
    inside = np.zeros(side * side, bool)
    inside[place] = True
    for _ in range(times):
        dx, dy = random.integers(-reach, reach, (2, *place.shape))
        near = (y + dy) * side + x + dx
        # Places below side^2 mean what is there after the scan, those above what was there before.
        link = np.concatenate([all_places + side * side] * 2)
        link[place] = np.where(inside[near] & (near > place), near, near + side * side)
        while not np.array_equal(further := link[link], link):
            link = further
        pixels = pixels.reshape(-1, 3)[link[: side * side] - side * side].reshape(image.shape)
    return _to_pixels(filters.blur_gaussian(pixels.astype(np.float32), sigma))


def _motion_blur(image: np.ndarray, constants: tuple[int, float], random: np.random.Generator) -> np.ndarray:
    radius, sigma = constants
    blurred = filters.blur_motion(image.astype(np.float32), radius, sigma, random.uniform(-45, 45))
    return np.rint(blurred).astype(np.uint8)  # as ImageMagick


def _zoom_blur(image: np.ndarray, constants: tuple[float, float], _: Any) -> np.ndarray:
    end, step = constants
    factors = np.arange(1, end, step).tolist()
    total = image.astype(np.float32)
    whole = total
    for factor in factors:
        total = total + filters.zoom_centre(whole, factor, len(image))
    return _to_pixels(total / (len(factors) + 1))


def _snow(image: np.ndarray, constants: tuple[float, ...], random: np.random.Generator) -> np.ndarray:
    mean, deviation, zoom, least, radius, sigma, weight = constants
    side, bare = len(image), image.astype(np.float32)
    flakes = random.normal(mean, deviation, (side, side, 1)).astype(np.float32)
    flakes = filters.zoom_centre(flakes, zoom, side)
    flakes = _to_pixels(255 * np.where(flakes < least, 0, flakes)).astype(np.float32)
    flakes = np.rint(filters.blur_motion(flakes, int(radius), sigma, random.uniform(-135, -45)))
    whitened = np.maximum(bare, (bare @ _GREY)[..., None] * 1.5 + 127.5)
    return _to_pixels(weight * bare + (1 - weight) * whitened + flakes + np.rot90(flakes, 2))


def _frost(image: np.ndarray, constants: tuple[float, float], random: np.random.Generator) -> np.ndarray:
    """Lays a part of a picture of frost over the image, for 32x32 every fifth pixel, as cv2.resize takes them."""
    pictures, side = load_frost(), len(image)
    picture = pictures[random.integers(len(pictures))]
    if side == 32:
        picture = picture[2::5, 2::5]
    top, left = (random.integers(extent - side) for extent in picture.shape[:2])
    own, ice = constants
    return _to_pixels(np.float32(own) * image + np.float32(ice) * picture[top : top + side, left : left + side])


def _fog(image: np.ndarray, constants: tuple[float, float], random: np.random.Generator) -> np.ndarray:
    weight, decay = constants
    clouds, brightest = filters.make_plasma(random, len(image), decay).astype(np.float32), float(image.max()) / 255
    return _to_pixels((image + 255 * weight * clouds[..., None]) * np.float32(brightest / (brightest + weight)))


def _brightness(image: np.ndarray, added: float, _: Any) -> np.ndarray:
    """Adds to the value of HSV, the largest of the three, with which the others grow: hue and saturation stay."""
    values = image.max(axis=2, keepdims=True).astype(np.float32)
    brighter = np.minimum(values + 255 * np.float32(added), 255)
    return _to_pixels(np.where(values > 0, image * (brighter / np.maximum(values, 1)), brighter))


def _contrast(image: np.ndarray, left: float, _: Any) -> np.ndarray:
    means = image.mean(axis=(0, 1), keepdims=True).astype(np.float32)
    return _to_pixels((image - means) * np.float32(left) + means)


def _elastic_transform(
    image: np.ndarray, constants: tuple[float, float, float], random: np.random.Generator
) -> np.ndarray:
    """Moves three corners of a square in the middle, and with them all, then each pixel for itself, smoothly."""
    reach, sigma, affine = constants
    side, pixels = len(image), image.astype(np.float32)
    middle, half = side // 2, side // 3
    corners = middle + half * np.array([[1, 1], [1, -1], [-1, -1]], np.float64)  # x, y
    moved = corners + random.uniform(-affine, affine, corners.shape)
    back = np.linalg.solve(np.column_stack([moved, np.ones(3)]), corners)  # (x, y, 1) @ back is where it came from
    y, x = np.meshgrid(np.arange(side), np.arange(side), indexing='ij')
    from_x, from_y = (x * back[0, i] + y * back[1, i] + back[2, i] for i in (0, 1))
    pixels = filters.sample_bilinear(pixels, from_y, from_x, twice=False)
    if reach:
        smoother = filters.make_smoother(side, sigma)
        dx, dy = (reach * (smoother @ random.uniform(-1, 1, (side, side)) @ smoother.T) for _ in 'xy')
        pixels = filters.sample_bilinear(pixels, y + dy, x + dx, twice=True)
    return _to_pixels(pixels)


def _pixelate(image: np.ndarray, share: float, _: Any) -> np.ndarray:
    side = len(image)
    small = Image.fromarray(image).resize((int(side * share),) * 2, Image.Resampling.BOX)
    return np.asarray(small.resize((side, side), Image.Resampling.BOX))


def _jpeg_compression(image: np.ndarray, quality: int, _: Any) -> np.ndarray:
    return compress_jpeg(image, quality)


def compress_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """Returns what is left of an image in a JPEG, as Pillow writes it: colours at half the resolution."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, 'JPEG', quality=quality)
    return np.asarray(Image.open(file))


_FUNCTIONS: dict[str, Callable[[np.ndarray, Any, Any], np.ndarray]] = {
    'gaussian_noise': _gaussian_noise,
    'shot_noise': _shot_noise,
    'impulse_noise': _impulse_noise,
    'defocus_blur': _defocus_blur,
    'glass_blur': _glass_blur,
    'motion_blur': _motion_blur,
    'zoom_blur': _zoom_blur,
    'snow': _snow,
    'frost': _frost,
    'fog': _fog,
    'brightness': _brightness,
    'contrast': _contrast,
    'elastic_transform': _elastic_transform,
    'pixelate': _pixelate,
    'jpeg_compression': _jpeg_compression,
}
