"""Decodes a prepared record's JPEG, whole or cropped and mirrored, straight into the batch."""

import threading
from collections.abc import Callable

import numpy as np
import simplejpeg

from alexnet_jax.data.statistics import RECORD
from alexnet_jax.errors import InputError

# `decode_record_crop` or `photo.decode_photo_crop`: (data, out, *, top, left, mirrored, record_size).
CropDecoder = Callable[..., None]
_scratch = threading.local()  # a record's pixels: new memory for every image would cost a twentieth of its decoding


def decode_record_crop(
    data: bytes, out: np.ndarray, *, top: int = 0, left: int = 0, mirrored: bool = False, record_size: int = RECORD
) -> None:
    """Decodes a crop of a prepared record, a JPEG of `record_size` x `record_size`; `InputError` if it is none.

    The crop begins at row `top` and column `left`, fills `out`, which is uint8 (side, side, 3) and contiguous and
    becomes RGB, and has left and right exchanged if `mirrored`.
    """
    side = len(out)
    whole = side == record_size and not mirrored
    if not whole and len(getattr(_scratch, 'pixels', ())) != record_size:
        _scratch.pixels = np.empty((record_size, record_size, 3), np.uint8)
    pixels = out if whole else _scratch.pixels
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        if height != record_size or width != record_size:
            raise ValueError(f'{width}x{height} pixels')
        simplejpeg.decode_jpeg(data, 'BGR' if mirrored else 'RGB', buffer=pixels)
    except ValueError as error:
        raise InputError(
            f'a record is not a readable JPEG of {record_size}x{record_size} ({error}): the dataset is damaged, '
            'prepare it again'
        ) from error
    if not whole:
        copy_crop(pixels[top : top + side, left : left + side], out, mirrored=mirrored)


def copy_crop(pixels: np.ndarray, out: np.ndarray, *, mirrored: bool) -> None:
    """Copies uint8 (side, side, 3), RGB, into `out`; if `mirrored`, takes BGR and mirrors it.

    A row of BGR reversed byte by byte is the mirrored row of RGB. Whole words of eight bytes are reversed in a tenth
    of the time that reversing pixels of three bytes takes; a row of 227 is no whole number of words.
    """
    side = len(out)
    if not mirrored:
        out[...] = pixels
    elif 3 * side % 8:
        out[...] = pixels[:, ::-1, ::-1]
    else:
        words = np.dtype(np.uint64)
        rows = np.lib.stride_tricks.as_strided(pixels, (side, 3 * side), (pixels.strides[0], 1))
        out.reshape(side, 3 * side).view(words)[...] = rows.view(words.newbyteorder())[:, ::-1]
