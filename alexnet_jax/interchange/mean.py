"""The mean that a foreign network subtracts: a colour, or Caffe's .binaryproto image."""

from __future__ import annotations

import pathlib
import re

import numpy as np

from alexnet_jax import InputError
from alexnet_jax.data.augment import centre_crop
from alexnet_jax.interchange.caffe_blob import blob
from alexnet_jax.interchange.card import flat_mean
from alexnet_jax.interchange.files import mapped
from alexnet_jax.interchange.wire import Malformed
from alexnet_jax.model.variants import RECORD_SIZE


def mean_image(text: str, size: int, *, record_size: int = RECORD_SIZE) -> np.ndarray:
    """float32 (size, size, 3), RGB, 0..255.

    Args:
      text: 'R,G,B', three numbers of 0..255, or a .binaryproto file of the record's size, (1, 3, 256, 256), or of
        the crop's, in Caffe's order BGR, of which the centre is taken (caffe/src/caffe/data_transformer.cpp).
      size: side of the crops.
      record_size: side of the records that they are cut out of.

    Raises:
      InputError: it is neither.
    """
    if re.fullmatch(r'[\d.]+(,[\d.]+){2}', text):
        try:
            red, green, blue = (float(part) for part in text.split(','))
        except ValueError as error:
            raise InputError(f'--mean={text}: give three numbers of 0..255, R,G,B') from error
        if max(red, green, blue) > 255:
            raise InputError(f'--mean={text}: pixels are 0..255')
        return flat_mean((red, green, blue), size)
    path = pathlib.Path(text)
    try:
        bgr = blob(mapped(path))
    except Malformed as error:
        raise InputError(f'--mean={path} is no .binaryproto of Caffe: {error}; or give R,G,B') from error
    bgr = bgr.reshape(bgr.shape[-3:])
    if bgr.shape not in ((3, record_size, record_size), (3, size, size)):
        raise InputError(f'--mean={path} is an image of {bgr.shape}, not of 3x{record_size}x{record_size}')
    rgb = np.asarray(bgr[::-1].transpose(1, 2, 0), np.float32)
    if not np.isfinite(rgb).all() or rgb.min() < 0 or rgb.max() > 255:
        raise InputError(f'--mean={path} holds values that are no pixels, 0..255')
    return np.ascontiguousarray(rgb if rgb.shape[0] == size else centre_crop(rgb, size))
