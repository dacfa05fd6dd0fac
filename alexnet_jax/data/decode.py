"""A prepared record's JPEG to pixels, whole or cropped and mirrored, written straight into the batch."""

from __future__ import annotations

import threading
from typing import Protocol

import numpy as np
import simplejpeg

from alexnet_jax import InputError
from alexnet_jax.data.statistics import IMAGE_SHAPE


class Window(Protocol):
    """Writes a window of the 256 x 256 image that encoded data stand for: `record_window`, `photo.photo_window`."""

    def __call__(self, data: bytes, out: np.ndarray, *, top: int = 0, left: int = 0, mirrored: bool = False) -> None:
        """Fills `out`.

        Args:
          data: an image file's bytes.
          out: uint8 (side, side, 3), contiguous; becomes RGB.
          top: first row of the window.
          left: first column.
          mirrored: whether left and right change places within the window.

        Raises:
          InputError: the data are no image that training can use.
        """
        ...


class _Scratch(threading.local):
    """A record's pixels, one for each thread: new memory for every image would cost a twentieth of its decoding."""

    def __init__(self) -> None:
        self.pixels = np.empty(IMAGE_SHAPE, np.uint8)


_scratch = _Scratch()


def record_window(data: bytes, out: np.ndarray, *, top: int = 0, left: int = 0, mirrored: bool = False) -> None:
    """A `Window` of a prepared record, a JPEG of 256 x 256."""
    whole = out.shape == IMAGE_SHAPE and not mirrored
    pixels = out if whole else _scratch.pixels
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        if (height, width, 3) != IMAGE_SHAPE:
            raise ValueError(f'{width}x{height} pixels')
        simplejpeg.decode_jpeg(data, 'BGR' if mirrored else 'RGB', buffer=pixels)
    except ValueError as error:
        raise InputError(
            f'a record is not a readable JPEG of 256x256 ({error}): the dataset is damaged, prepare it again'
        ) from error
    if not whole:
        side = out.shape[0]
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


def decode(jpeg: bytes) -> np.ndarray:
    """A record's JPEG -> uint8 (256, 256, 3) RGB."""
    pixels = np.empty(IMAGE_SHAPE, np.uint8)
    record_window(jpeg, pixels)
    return pixels
