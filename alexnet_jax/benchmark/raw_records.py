"""The raw records whose reading is measured: the first ones of a dataset, decoded."""

import itertools
import pathlib
from typing import Any

import numpy as np
import simplejpeg

from alexnet_jax.data.preparing.raw_shards import RawShardWriter
from alexnet_jax.data.statistics import RECORD

MOST = 2048  # records: 403 MB, more than a processor's cache has and less than the page cache


def write_raw_shard(records: Any, path: pathlib.Path) -> np.ndarray:
    """Writes the first `MOST` of an iterable of (JPEG, label) as one shard; returns their labels, int32 (n,)."""
    writer, labels = RawShardWriter(path, record_size=RECORD), []
    for jpeg, label in itertools.islice(records, MOST):
        writer.write(simplejpeg.decode_jpeg(jpeg).tobytes(), label)
        labels.append(label)
    writer.close()
    return np.array(labels, np.int32)
