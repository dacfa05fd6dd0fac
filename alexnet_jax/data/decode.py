"""Decodes a prepared record's JPEG, whole or cropped and mirrored, straight into the batch."""

from __future__ import annotations

import threading
from typing import Protocol

import numpy as np
import simplejpeg

from alexnet_jax.data.statistics import RECORD
from alexnet_jax.errors import InputError


class CropDecoder(Protocol):
    """Decodes a crop of a square image: `decode_record_crop`, `photo.decode_photo_crop`."""

    def __call__(
        self,
        data: bytes,
        out: np.ndarray,
        *,
        top: int = 0,
        left: int = 0,
        mirrored: bool = False,
        record_size: int = RECORD,
    ) -> None:
        """Fills `out`.

        Args:
          data: an image file's bytes.
          out: uint8 (side, side, 3), contiguous; becomes RGB.
          top: first row of the crop.
          left: first column.
          mirrored: whether to exchange left and right within the crop.
          record_size: side of the square that the crop is cut out of.

        Raises:
          InputError: training cannot use the image.
        """
        ...


_scratch = threading.local()  # a record's pixels: new memory for every image would cost a twentieth of its decoding


def _get_scratch(record_size: int) -> np.ndarray:
    """Returns this thread's memory for one record."""
    if len(getattr(_scratch, 'pixels', ())) != record_size:
        _scratch.pixels = np.empty((record_size, record_size, 3), np.uint8)
    return _scratch.pixels


def decode_record_crop(
    data: bytes, out: np.ndarray, *, top: int = 0, left: int = 0, mirrored: bool = False, record_size: int = RECORD
) -> None:
    """Decodes a crop of a prepared record, a JPEG of `record_size` x `record_size`; see `CropDecoder`."""
    side = len(out)
    whole = side == record_size and not mirrored
    pixels = out if whole else _get_scratch(record_size)
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


def decode_record(jpeg: bytes, *, record_size: int = RECORD) -> np.ndarray:
    """Decodes a record's JPEG to uint8 (record_size, record_size, 3) RGB."""
    pixels = np.empty((record_size, record_size, 3), np.uint8)
    decode_record_crop(jpeg, pixels, record_size=record_size)
    return pixels
