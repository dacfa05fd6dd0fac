"""The paper's augmentation (section 4.1): random 224x224 crops, horizontal flips, RGB lighting.

The host draws and crops; the device subtracts the mean and adds the lighting, so that only uint8 crops and three
floats per image cross between them.
"""

from __future__ import annotations

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np
from jax import Array

from alexnet_jax.data.statistics import RECORD

CROP = 224  # the paper's; Caffe's networks read crops of 227


def offsets_of(size: int, *, record: int = RECORD) -> int:
    """Places of a crop of `size` along each side of a record of `record`: of 224 out of 256, 33, 0 to 32 inclusive."""
    return record - size + 1


OFFSETS = offsets_of(CROP)


@dataclasses.dataclass(frozen=True)
class Draw:
    """What chance decides for one image in one epoch: crop offset, flip, three standard normal numbers."""

    top: int
    left: int
    flip: bool
    normals: np.ndarray


def draw(*, seed: int, epoch: int, record: int, crop_group: int | None = None, offsets: int = OFFSETS) -> Draw:
    """The augmentation of `record` in `epoch`: a pure function, the same on any host and for any worker count.

    Images of one `crop_group` of an epoch share crop and flip, never the normals; None: each record draws its own.
    `offsets` are those of the crop's size and the record's (`offsets_of`).
    """
    if crop_group is not None:
        shared = _group_draw(seed=seed, epoch=epoch, group=crop_group, offsets=offsets)
        own = draw(seed=seed, epoch=epoch, record=record, offsets=offsets)
        return dataclasses.replace(shared, normals=own.normals)
    # Philox is counter-based: every (seed, epoch, record) is an independent stream, found without walking to it.
    random = np.random.Generator(np.random.Philox(key=[seed, epoch], counter=[0, 0, 0, record]))
    top, left, flip = random.integers(offsets), random.integers(offsets), random.integers(2)
    return Draw(int(top), int(left), bool(flip), random.standard_normal(3))


@functools.lru_cache(maxsize=64)  # the images of a group come one after another
def _group_draw(*, seed: int, epoch: int, group: int, offsets: int) -> Draw:
    """Whose crop and flip a group takes: those that the record of its number would have had."""
    return draw(seed=seed, epoch=epoch, record=group, offsets=offsets)


@functools.lru_cache(maxsize=4)
def fixed_places(crops: int, *, seed: int, offsets: int = OFFSETS) -> tuple[tuple[int, int], ...]:
    """(top, left) of `crops` different crops, or all there are: the centre, and others drawn once for all epochs."""
    edge = (offsets - 1) // 2
    # The third number keeps this stream apart from the order of the epochs.
    others = np.random.default_rng([seed, 0, 0xC209]).permutation(offsets**2)
    places = [divmod(int(place), offsets) for place in others]
    return ((edge, edge), *[place for place in places if place != (edge, edge)])[:crops]


def limited(chance: Draw, *, places: tuple[tuple[int, int], ...] | None, flips: bool, offsets: int = OFFSETS) -> Draw:
    """The draw with one of `places` for its offset (None: any), and mirrored only where `flips`.

    Few places are equally likely; of many, which do not divide offsets**2 evenly, some are twice as likely as others.
    What is left to chance comes out as it would without the limits.
    """
    if places is not None:
        top, left = places[(chance.top * offsets + chance.left) * len(places) // offsets**2]
        chance = dataclasses.replace(chance, top=top, left=left)
    return chance if flips else dataclasses.replace(chance, flip=False)


def crop(image: np.ndarray, chance: Draw, *, size: int = CROP) -> np.ndarray:
    """uint8 (h, w, 3) -> (size, size, 3): the drawn crop, mirrored left to right where drawn."""
    view = image[chance.top : chance.top + size, chance.left : chance.left + size]
    return view[:, ::-1] if chance.flip else view


def lighting_basis(rgb_covariance: np.ndarray, *, scale: str, strength: float) -> np.ndarray:
    """float32 (3, 3) B: an image's lighting is B @ normals, in 0..255 units per RGB channel.

    Args:
      rgb_covariance: (3, 3), of training pixels in 0..255 units.
      scale: 'standard_deviation' or 'eigenvalue', see model.variants.Lighting.
      strength: standard deviation of the drawn numbers, 0.1 in the paper.
    """
    eigenvalues, vectors = np.linalg.eigh(rgb_covariance)
    eigenvalues = eigenvalues.clip(min=0)  # rounding may leave -1e-12 on greyscale data
    match scale:
        case 'standard_deviation':
            sizes = np.sqrt(eigenvalues)
        case 'eigenvalue':
            sizes = eigenvalues / 255**2 * 255  # of 0..1 pixels, then the noise back to 0..255
        case _:
            raise ValueError(f'unknown lighting scale {scale!r}')
    return (vectors * (strength * sizes)).astype(np.float32)


def centre_crop(image: Array | np.ndarray, size: int = CROP) -> Array | np.ndarray:
    """The middle size x size of (..., n, n, 3)."""
    edge = (image.shape[-2] - size) // 2
    return image[..., edge : edge + size, edge : edge + size, :]


def normalise(
    images: Array,
    mean: Array,
    *,
    lighting: Array | None = None,
    divisor: float = 1.0,
    std: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Array:
    """uint8 crops (b, size, size, 3) -> what the network reads, on the device, in the dtype of `mean`.

    Args:
      images: uint8 or any numeric, 0..255.
      mean: (size, size, 3), 0..255: the centre of the training set's mean image, for every crop (CHM
        convdata_jpeg.py).
      lighting: (b, 3), added to all pixels of an image, 0..255 units; three zeros for an image that gets none, and
        None in testing, where none does.
      divisor: divides each image to which lighting was added, and no other (see model.variants.Lighting).
      std: divides each RGB channel (see model.variants.Variant.pixel_std).
    """
    x = images.astype(mean.dtype) - mean
    if lighting is not None:
        x += lighting[:, None, None, :].astype(mean.dtype)
        if divisor != 1:
            divisors = jnp.where((lighting != 0).any(axis=1), jnp.asarray(divisor, mean.dtype), 1)
            x /= divisors[:, None, None, None]
    return x if set(std) == {1.0} else x / jnp.asarray(std, mean.dtype)
