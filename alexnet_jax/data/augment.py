"""Augments images as the paper does (section 4.1): random 224x224 crops, horizontal flips, RGB lighting.

The host samples and crops; the device mirrors, subtracts the mean and adds the lighting, so that only uint8 crops and
six numbers per image cross between them.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from alexnet_jax.data.philox import Words, draw_words
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
    *,
    seed: int,
    epoch: int,
    record: int,
    crop_group: int | None = None,
    offset_count: int = OFFSET_COUNT,
    offsets: Sequence[tuple[int, int]] | None = None,
    flips: bool = True,
) -> Augmentation:
    """Samples the augmentation of `record` in `epoch`: a pure function, the same on any host, for any worker count.

    Images of one `crop_group` of an epoch share the crop and flip of the record whose number is the group's, never the
    normals; None: each record has its own. `offset_count` is the crop's (`count_offsets`). `offsets` are the (top,
    left) to choose from, None: all; few are equally likely; of many, which do not divide offset_count**2 evenly, some
    are twice as likely as others. `flips` says whether images are mirrored at all.
    """
    groups = None if crop_group is None else np.array([crop_group])
    options: Any = {'offset_count': offset_count, 'offsets': offsets, 'flips': flips}
    places, normals = sample_augmentations(
        seed=seed, epochs=np.array([epoch]), records=np.array([record]), crop_groups=groups, **options
    )
    top, left, flip = places[0].tolist()
    return Augmentation(top, left, bool(flip), normals[0])


def sample_augmentations(
    *,
    seed: int,
    epochs: np.ndarray,
    records: np.ndarray,
    crop_groups: np.ndarray | None = None,
    offset_count: int = OFFSET_COUNT,
    offsets: Sequence[tuple[int, int]] | None = None,
    flips: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Samples the augmentations of a batch, `sample_augmentation` of each image; `epochs`, `records` are int (b,).

    Returns:
      int32 (b, 3), each crop's top, left and whether it is mirrored, and float64 (b, 3), standard normal numbers.
    """
    places, normals = _sample(seed, epochs, records, offset_count)
    if crop_groups is not None:
        places, _ = _sample(seed, epochs, crop_groups, offset_count)
    if offsets is not None:
        chosen = (places[:, 0] * offset_count + places[:, 1]) * len(offsets) // offset_count**2
        places[:, :2] = np.asarray(offsets)[chosen]
    if not flips:
        places[:, 2] = 0
    return places.astype(np.int32), normals


def _sample(seed: int, epochs: np.ndarray, records: np.ndarray, offset_count: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws int64 (b, 3), top, left and flip, and float64 (b, 3), from streams of (seed, epoch, record).

    Philox is counter-based: every stream is independent, and found without walking to it.
    """
    keys = np.stack(np.broadcast_arrays(np.uint64(seed), epochs.astype(np.uint64)), axis=1)
    words = Words(draw_words(keys, records.astype(np.uint64)))
    places = np.stack([words.integers(offset_count), words.integers(offset_count), words.integers(2)], axis=1)
    normals = words.normals(3)
    for i in np.flatnonzero(~words.sure).tolist():  # one in twenty
        counter = [0, 0, 0, int(records[i])]
        random = np.random.Generator(np.random.Philox(key=[seed, int(epochs[i])], counter=counter))
        places[i] = random.integers(offset_count), random.integers(offset_count), random.integers(2)
        normals[i] = random.standard_normal(3)
    return places, normals


def choose_offsets(crops: int, *, seed: int, offset_count: int = OFFSET_COUNT) -> tuple[tuple[int, int], ...]:
    """Chooses (top, left) of `crops` different crops, or of all: the centre, and others, the same in all epochs."""
    centre = ((offset_count - 1) // 2,) * 2
    # The third number keeps this stream apart from the order of the epochs.
    order = np.random.default_rng([seed, 0, 0xC209]).permutation(offset_count**2)
    offsets = [divmod(int(index), offset_count) for index in order]
    return (centre, *[offset for offset in offsets if offset != centre])[:crops]


def lighting_basis(rgb_covariance: np.ndarray, *, scale: str, strength: float) -> np.ndarray:
    """Returns float32 (3, 3) B: an image's lighting is B @ normals, in 0..255 units per RGB channel.

    `rgb_covariance` is (3, 3), of training pixels in 0..255 units. `scale` is 'standard_deviation' or 'eigenvalue', and
    `strength` the standard deviation of the random numbers (see model.spec.Lighting).
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


def cut_mean(mean: Array, places: Array | None, *, size: int) -> Array:
    """Cuts what is subtracted from crops of size x size out of a mean image, on the device.

    Args:
      mean: (n, n, 3), 0..255. Of a crop's size it is for every crop: the centre of the training set's mean image (CHM
        convdata_jpeg.py). Of a record's, each crop has the part behind it, mirrored with it (Caffe
        src/caffe/data_transformer.cpp).
      places: int32 (b, 3), each crop's top, left and whether it is mirrored; None: not known, which is an error where
        the crops do not all have the same mean.
      size: side of the crops.

    Returns:
      (size, size, 3), or (b, size, size, 3).
    """
    if mean.shape[0] == size:
        return mean
    if places is None:
        raise ValueError(f'a mean image of {mean.shape[0]} needs the places of its crops of {size}')

    def cut(place: Array) -> Array:
        part = lax.dynamic_slice(mean, (place[0], place[1], jnp.zeros_like(place[0])), (size, size, 3))
        return jnp.where(place[2] != 0, part[:, ::-1], part)

    return jax.vmap(cut)(places)


def mirror(images: Array, places: Array | None) -> Array:
    """Exchanges left and right of those crops (b, size, size, 3) of which `places` says so, on the device.

    `places` is int32 (b, 3), as of `cut_mean`; None: the crops are as they are to be read.
    """
    if places is None:
        return images
    return jnp.where((places[:, 2] != 0)[:, None, None, None], images[:, :, ::-1], images)


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
      mean: (size, size, 3), 0..255, for every crop, or (b, size, size, 3): what `cut_mean` gives.
      lighting: (b, 3), added to all pixels of an image, 0..255 units; three zeros, or None for all images: nothing.
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
