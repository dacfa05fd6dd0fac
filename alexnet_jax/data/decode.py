"""Decodes a prepared record's JPEG, whole or cropped, into the batch."""

import functools
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import simplejpeg

from alexnet_jax.data.preprocessing import PAPER
from alexnet_jax.data.statistics import RECORD
from alexnet_jax.errors import InputError

# `decode_record_crop` or `photo.decode_photo_crop`: (data, out, *, top, left, record_size).
CropDecoder = Callable[..., None]
_scratch = threading.local()  # a record's pixels: new memory for every image would cost a twentieth of its decoding


def get_crop_decoder(source: Any) -> CropDecoder:
    """Returns the decoder of the images of `source`, a `dataset.DataSource`."""
    if not source.photos:
        return decode_record_crop
    from alexnet_jax.data.photo import decode_photo_crop  # here, because prepared records need no Pillow

    if source.preprocessing == PAPER:
        return decode_photo_crop
    return functools.partial(decode_photo_crop, preprocessing=source.preprocessing)


def decode_indexed(decode_crop: CropDecoder, data: bytes, out: np.ndarray, *, record: int, **place: int) -> None:
    """Decodes by `decode_crop` at `place`; the `InputError` for what cannot be decoded names the index `record`."""
    try:
        decode_crop(data, out, **place)
    except (ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f'record {record} is no image that can be decoded: {reason}') from error


def decode_record_crop(data: bytes, out: np.ndarray, *, top: int = 0, left: int = 0, record_size: int = RECORD) -> None:
    """Decodes a crop of a prepared record, a JPEG of `record_size` x `record_size`; `InputError` if it is none.

    The crop begins at row `top` and column `left` and fills `out`, which is uint8 (side, side, 3) and contiguous and
    becomes RGB.
    """
    side = len(out)
    whole = side == record_size
    if not whole and len(getattr(_scratch, 'pixels', ())) != record_size:
        _scratch.pixels = np.empty((record_size, record_size, 3), np.uint8)
    pixels = out if whole else _scratch.pixels
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        if height != record_size or width != record_size:
            raise ValueError(f'{width}x{height} pixels')
        simplejpeg.decode_jpeg(data, 'RGB', buffer=pixels)
    except ValueError as error:
        raise InputError(
            f'a record is not a readable JPEG of {record_size}x{record_size} ({error}): the dataset is damaged, '
            'prepare it again'
        ) from error
    if not whole:
        out[...] = pixels[top : top + side, left : left + side]
