"""The views of an image that the test protocols average over (paper section 4.1)."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from alexnet_jax.data.augment import CROP, count_offsets
from alexnet_jax.data.statistics import RECORD


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
