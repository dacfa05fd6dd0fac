"""Caffe's BlobProto, an array. Source: BVLC/caffe src/caffe/proto/caffe.proto."""

from __future__ import annotations

import math

import numpy as np

from alexnet_jax.interchange.wire import Malformed, collect, floats, integer, integers, messages

_LEGACY = (1, 2, 3, 4)  # num, channels, height, width
_DATA, _SHAPE, _DOUBLE_DATA = 5, 7, 8
_DIM = 1  # of BlobShape


def blob(message: memoryview) -> np.ndarray:
    """float32 or float64, in its shape; a view of `message` where the numbers lie in one piece, as they do.

    Raises:
      Malformed: it is no such message, or has other than as many numbers as its shape says.
    """
    found = collect(message, *_LEGACY, _DATA, _SHAPE, _DOUBLE_DATA)
    if found[_SHAPE]:
        shape = tuple(integers(collect(messages(found[_SHAPE])[-1], _DIM)[_DIM], most=8))
    else:
        shape = tuple(integer(found[number]) for number in _LEGACY)
    double = floats(found[_DOUBLE_DATA], '<f8')
    data = double if double.size else floats(found[_DATA], '<f4')
    if not shape or min(shape) < 1 or math.prod(shape) != data.size:
        raise Malformed(f'an array of {shape} with {data.size:,} numbers')
    return data.reshape(shape)
