"""The views of an image that the test protocols average over (paper section 4.1)."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from alexnet_jax.data.augment import CROP, OFFSETS


class View(NamedTuple):
    """A 224x224 crop at (top, left), 0..32, mirrored left to right where `flip`."""

    top: int
    left: int
    flip: bool


_END, _MIDDLE = OFFSETS - 1, (OFFSETS - 1) // 2
CENTRE = (View(_MIDDLE, _MIDDLE, flip=False),)
# "the four corner patches and the center patch as well as their horizontal reflections"
TEN_VIEW = tuple(
    View(top, left, flip)
    for flip in (False, True)
    for top, left in ((0, 0), (0, _END), (_END, 0), (_END, _END), (_MIDDLE, _MIDDLE))
)
PROTOCOLS = {'centre': CENTRE, 'ten_view': TEN_VIEW}


def cut(images: Array, top: Array, left: Array, flip: Array) -> Array:
    """uint8 (b, 256, 256, 3) -> (b, 224, 224, 3), the same view of every image; the view may be traced."""
    b, _, _, channels = images.shape
    none = jnp.zeros_like(top)
    view = lax.dynamic_slice(images, (none, top, left, none), (b, CROP, CROP, channels))
    return jnp.where(flip, view[:, :, ::-1], view)
