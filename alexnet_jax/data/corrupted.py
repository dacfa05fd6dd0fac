"""Records that are pixels when they are read: corrupted on the fly, or out of a folder of corrupted images."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from alexnet_jax.data.corruption_constants import IMAGENET_C, SIZES
from alexnet_jax.data.corruptions import compress_jpeg, corrupt, make_stream
from alexnet_jax.data.decode import decode_indexed, get_crop_decoder

JPEG_QUALITY = 85  # in which ImageNet-C comes: hendrycks/robustness 8190fe3, make_imagenet_c.py:94
_THREADS = 16  # at most: with each come batches in memory


class PixelSource:
    """Reads records as pixels by index, whole, by `read`, which is to be defined; any number of threads may read.

    Attributes:
      labels: int32 (n,), at least of the records that were read.
      threads: how many read well together.
    """

    photos = False

    def __init__(self, labels: np.ndarray, *, preprocessing: str) -> None:
        self.labels, self.preprocessing = labels, preprocessing
        self.threads = min(len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else 2, _THREADS)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Reads a whole record, uint8 (side, side, 3) RGB, and its label."""
        return self.read(index), int(self.labels[index])

    def read(self, index: int) -> np.ndarray:
        """Reads a whole record, uint8 (side, side, 3) RGB, and notes its label."""
        raise NotImplementedError

    def prefetch(self, records: Sequence[int]) -> None:
        """Does nothing, where there is nothing to be asked for before."""

    def read_crop(self, index: int, out: np.ndarray, *, top: int = 0, left: int = 0) -> None:
        """Fills `out`, uint8 (side, side, 3), with the part of a record that begins at (top, left)."""
        out[...] = self.read(index)[top : top + len(out), left : left + len(out)]


class CorruptedSource(PixelSource):
    """Corrupts each record of `source` when it is read: a function of (seed, record, corruption, severity).

    Records of 256 are compressed as ImageNet-C's images were, which published errors are of; CIFAR-10-C's were not.
    """

    def __init__(self, source: Any, corruption: str, severity: int, *, seed: int, record_size: int) -> None:
        """Wraps a `dataset.Source`, whose records are of one of corruption_constants.SIZES."""
        super().__init__(np.zeros(len(source), np.int32), preprocessing=source.preprocessing)
        self._source, self._record_size, self._seed = source, record_size, seed
        self._corruption, self._severity = corruption, severity
        self._pixels = hasattr(source, 'read_crop')  # and not encoded
        self._decode = None if self._pixels else get_crop_decoder(source)

    def prefetch(self, records: Sequence[int]) -> None:
        """Asks for pixels that are read as they are; raises as `raw.RawSource.prefetch`."""
        if self._pixels:
            self._source.prefetch(records)

    def read(self, index: int) -> np.ndarray:
        """Reads and corrupts a record.

        Raises:
          InputError: the record is damaged, or the pictures of frost are not installed.
        """
        image = np.empty((self._record_size, self._record_size, 3), np.uint8)
        if self._decode is None:
            self._source.read_crop(index, image)
            self.labels[index] = self._source.labels[index]
        else:
            data, self.labels[index] = self._source[index]
            decode_indexed(self._decode, data, image, record=index, record_size=self._record_size)
        random = make_stream(self._seed, index, self._corruption, self._severity)
        image = corrupt(image, self._corruption, self._severity, random)
        return compress_jpeg(image, JPEG_QUALITY) if SIZES[self._record_size] == IMAGENET_C else image
