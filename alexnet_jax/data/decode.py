"""A prepared record's JPEG to pixels, whole or cropped and mirrored, written straight into the batch."""

from __future__ import annotations

import threading
from typing import Protocol

import numpy as np
import simplejpeg

from alexnet_jax import InputError
from alexnet_jax.data.statistics import RECORD


class Window(Protocol):
    """Writes a window of the square image that encoded data stand for: `record_window`, `photo.photo_window`."""

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
          top: first row of the window.
          left: first column.
          mirrored: whether left and right change places within the window.
          record_size: side of the image that the window is cut out of.

        Raises:
          InputError: the data are no image that training can use.
        """
        ...


class _Scratch(threading.local):
    """A record's pixels, one for each thread: new memory for every image would cost a twentieth of its decoding."""

    def __init__(self) -> None:
        self.pixels = np.empty((RECORD, RECORD, 3), np.uint8)

    def of(self, record_size: int) -> np.ndarray:
        if len(self.pixels) != record_size:
            self.pixels = np.empty((record_size, record_size, 3), np.uint8)
        return self.pixels


_scratch = _Scratch()


def record_window(
    data: bytes, out: np.ndarray, *, top: int = 0, left: int = 0, mirrored: bool = False, record_size: int = RECORD
) -> None:
    """A `Window` of a prepared record, a JPEG of `record_size` x `record_size`."""
    side = len(out)
    whole = side == record_size and not mirrored
    pixels = out if whole else _scratch.of(record_size)
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
        copy_window(pixels[top : top + side, left : left + side], out, mirrored=mirrored)


def copy_window(pixels: np.ndarray, out: np.ndarray, *, mirrored: bool) -> None:
    """Copies uint8 (side, side, 3), RGB, into `out`; if `mirrored` it takes BGR, and mirrors it.

    For a row of BGR read backwards, byte by byte, is the mirrored row of RGB: whole words can be reversed, eight
    bytes at a time, in a tenth of the time that reversing pixels of three bytes takes. A row of 227 is no whole number
    of words, and takes that time.
    """
    if not mirrored:
        out[...] = pixels
        return
    side = out.shape[0]
    if 3 * side % 8:
        out[...] = pixels[:, ::-1, ::-1]
        return
    words = np.dtype(np.uint64)
    rows = np.lib.stride_tricks.as_strided(pixels, (side, 3 * side), (pixels.strides[0], 1))
    out.reshape(side, 3 * side).view(words)[...] = rows.view(words.newbyteorder())[:, ::-1]


def decode(jpeg: bytes, *, record_size: int = RECORD) -> np.ndarray:
    """A record's JPEG -> uint8 (record_size, record_size, 3) RGB."""
    pixels = np.empty((record_size, record_size, 3), np.uint8)
    record_window(jpeg, pixels, record_size=record_size)
    return pixels
