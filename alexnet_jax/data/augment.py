"""Augments images as the paper does (section 4.1): random 224x224 crops, horizontal flips, RGB lighting.

The host samples and crops; the device subtracts the mean and adds the lighting, so that only uint8 crops and three
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


def count_offsets(size: int, *, record: int = RECORD) -> int:
    """Counts the offsets of a crop of `size` along a side of `record` pixels: of 224 in 256, 33, 0 to 32 inclusive."""
    return record - size + 1


OFFSET_COUNT = count_offsets(CROP)


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """The random values of one image in one epoch: crop offset, flip, three standard normal numbers."""

    top: int
    left: int
    flip: bool
    normals: np.ndarray


def sample_augmentation(
    *, seed: int, epoch: int, record: int, crop_group: int | None = None, offset_count: int = OFFSET_COUNT
) -> Augmentation:
    """Samples the augmentation of `record` in `epoch`: a pure function, the same on any host, for any worker count.

    Images of one `crop_group` of an epoch share crop and flip, never the normals; None: each record has its own.
    `offset_count` is that of the crop's size and the record's (`count_offsets`).
    """
    if crop_group is not None:
        shared = _sample_for_group(seed=seed, epoch=epoch, group=crop_group, offset_count=offset_count)
        own = sample_augmentation(seed=seed, epoch=epoch, record=record, offset_count=offset_count)
        return dataclasses.replace(shared, normals=own.normals)
    # Philox is counter-based: every (seed, epoch, record) is an independent stream, found without walking to it.
    random = np.random.Generator(np.random.Philox(key=[seed, epoch], counter=[0, 0, 0, record]))
    top, left, flip = random.integers(offset_count), random.integers(offset_count), random.integers(2)
    return Augmentation(int(top), int(left), bool(flip), random.standard_normal(3))


@functools.lru_cache(maxsize=64)  # the images of a group come one after another
def _sample_for_group(*, seed: int, epoch: int, group: int, offset_count: int) -> Augmentation:
    """Samples what a group shares: the crop and flip of the record whose number is the group's."""
    return sample_augmentation(seed=seed, epoch=epoch, record=group, offset_count=offset_count)


@functools.lru_cache(maxsize=4)
def choose_offsets(crops: int, *, seed: int, offset_count: int = OFFSET_COUNT) -> tuple[tuple[int, int], ...]:
    """Chooses (top, left) of `crops` different crops, or of all: the centre, and others, the same in all epochs."""
    centre = ((offset_count - 1) // 2,) * 2
    # The third number keeps this stream apart from the order of the epochs.
    order = np.random.default_rng([seed, 0, 0xC209]).permutation(offset_count**2)
    offsets = [divmod(int(index), offset_count) for index in order]
    return (centre, *[offset for offset in offsets if offset != centre])[:crops]


def restrict_augmentation(
    augmentation: Augmentation,
    *,
    offsets: tuple[tuple[int, int], ...] | None,
    flips: bool,
    offset_count: int = OFFSET_COUNT,
) -> Augmentation:
    """Restricts the crop to one of `offsets` (None: any), and mirrors only where `flips`.

    Few offsets are equally likely; of many, which do not divide offset_count**2 evenly, some are twice as likely as
    others. What is not restricted stays as it was sampled.
    """
    if offsets is not None:
        sampled = augmentation.top * offset_count + augmentation.left
        top, left = offsets[sampled * len(offsets) // offset_count**2]
        augmentation = dataclasses.replace(augmentation, top=top, left=left)
    return augmentation if flips else dataclasses.replace(augmentation, flip=False)


def crop(image: np.ndarray, augmentation: Augmentation, *, size: int = CROP) -> np.ndarray:
    """Crops uint8 (h, w, 3) to (size, size, 3) at the sampled offset, and mirrors it left to right if `flip`."""
    view = image[augmentation.top : augmentation.top + size, augmentation.left : augmentation.left + size]
    return view[:, ::-1] if augmentation.flip else view


def lighting_basis(rgb_covariance: np.ndarray, *, scale: str, strength: float) -> np.ndarray:
    """Returns float32 (3, 3) B: an image's lighting is B @ normals, in 0..255 units per RGB channel.

    Args:
      rgb_covariance: (3, 3), of training pixels in 0..255 units.
      scale: 'standard_deviation' or 'eigenvalue', see model.spec.Lighting.
      strength: standard deviation of the random numbers, 0.1 in the paper.
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
    """Returns the middle size x size of (..., n, n, 3)."""
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
    """Turns crops (b, size, size, 3) into the network's input, on the device, in the dtype of `mean`.

    Args:
      images: uint8 or any numeric, 0..255.
      mean: (size, size, 3), 0..255: the centre of the training set's mean image, for every crop (CHM
        convdata_jpeg.py).
      lighting: (b, 3), added to all pixels of an image, 0..255 units; three zeros for an image that gets none, and
        None in testing, where none does.
      divisor: divides each image to which lighting was added, and no other (see model.spec.Lighting).
      std: divides each RGB channel (see model.spec.Variant.pixel_std).
    """
    x = images.astype(mean.dtype) - mean
    if lighting is not None:
        x += lighting[:, None, None, :].astype(mean.dtype)
        if divisor != 1:
            divisors = jnp.where((lighting != 0).any(axis=1), jnp.asarray(divisor, mean.dtype), 1)
            x /= divisors[:, None, None, None]
    return x if set(std) == {1.0} else x / jnp.asarray(std, mean.dtype)
