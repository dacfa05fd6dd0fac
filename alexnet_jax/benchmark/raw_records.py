"""The records whose pixels are measured, raw and in memory: the first ones of a dataset."""

import itertools
import pathlib
from typing import Any

import numpy as np
import simplejpeg

from alexnet_jax.data.dataset import DataSource
from alexnet_jax.data.preparing.raw_shards import RawShardWriter
from alexnet_jax.data.statistics import RECORD

MOST = 2048  # records: 403 MB, more than a processor's cache has and less than the page cache


class FirstRecords:
    """The first `MOST` of the prepared records `source`, by index: all of ImageNet fits into no memory."""

    photos = False  # these are squares

    def __init__(self, source: DataSource) -> None:
        self._source, self.preprocessing = source, source.preprocessing

    def __len__(self) -> int:
        return min(len(self._source), MOST)

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        return self._source[index]


def write_raw_shard(records: Any, path: pathlib.Path) -> np.ndarray:
    """Writes the first `MOST` of an iterable of (JPEG, label) as one shard; returns their labels, int32 (n,)."""
    writer, labels = RawShardWriter(path, record_size=RECORD), []
    for jpeg, label in itertools.islice(records, MOST):
        writer.write(simplejpeg.decode_jpeg(jpeg).tobytes(), label)
        labels.append(label)
    writer.close()
    return np.array(labels, np.int32)
