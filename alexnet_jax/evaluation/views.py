"""The views of an image that the test protocols average over (paper section 4.1), and which arrays are images."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from alexnet_jax.data.augment import CROP, count_offsets
from alexnet_jax.data.statistics import RECORD
from alexnet_jax.errors import InputError
from alexnet_jax.model.spec import Variant


class View(NamedTuple):
    """A crop at (top, left), of 224x224 out of 256x256 each 0..32, mirrored left to right where `flip`."""

    top: int
    left: int
    flip: bool


PROTOCOLS = {'centre': 'centre', 'ten_view': 'ten-view'}  # each with what people call it


def get_views(protocol: str, size: int = CROP, *, record: int = RECORD) -> tuple[View, ...]:
    """The views of size x size, out of record x record, that 'centre' (one) or 'ten_view' (ten) averages over.

    Of a network that reads whole records the ten are two, as they are and mirrored: views that are the same come once.
    """
    end = count_offsets(size, record=record) - 1
    middle = end // 2
    if protocol == 'centre':
        return (View(middle, middle, flip=False),)
    # "the four corner patches and the center patch as well as their horizontal reflections"
    places = ((0, 0), (0, end), (end, 0), (end, end), (middle, middle))
    return tuple(dict.fromkeys(View(top, left, flip) for flip in (False, True) for top, left in places))


def cut_view(images: Array, top: Array, left: Array, flip: Array, *, size: int = CROP) -> Array:
    """uint8 (b, h, w, 3) -> (b, size, size, 3), the same view of every image; the view may be traced."""
    b, _, _, channels = images.shape
    none = jnp.zeros_like(top)
    view = lax.dynamic_slice(images, (none, top, left, none), (b, size, size, channels))
    return jnp.where(flip, view[:, :, ::-1], view)


def make_batch(images: Any, variant: Variant, *, any_size: bool = False) -> Array:
    """Checks shape and dtype of images, which are static under jit, and gives one image a batch axis.

    Raises:
      InputError: they are no array (n, side, side, 3) of crops or records, or with `any_size` (n, height, width, 3), n
        left out for one, uint8 or float.
    """
    sizes = dict.fromkeys((variant.input_size, variant.record_size))
    wanted = '(height, width, 3)' if any_size else ' or '.join(f'({size}, {size}, 3)' for size in sizes)
    shape, dtype = getattr(images, 'shape', None), getattr(images, 'dtype', None)
    if shape is None or dtype is None:
        raise InputError(f'images are a {type(images).__name__}: give a NumPy or JAX array, {wanted} or a batch')
    fits = shape[-1:] == (3,) if any_size else tuple(shape[-3:]) in [(size, size, 3) for size in sizes]
    if len(shape) not in (3, 4) or not fits:
        raise InputError(f'images have the shape {tuple(shape)}: give one of {wanted}, or a batch (n, ...) of them')
    if shape[0] == 0:
        raise InputError(f'images have the shape {tuple(shape)}: a batch has at least one')
    if dtype != jnp.uint8 and not jnp.issubdtype(dtype, jnp.floating):
        raise InputError(f'images are {dtype}: give uint8 or a float dtype, 0 to 255 in both cases')
    batch = jnp.asarray(images)
    return batch if batch.ndim == 4 else batch[None]
