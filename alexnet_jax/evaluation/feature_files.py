"""Features in files: .npz for NumPy, .parquet for everything else. Both say which layer and whose network it was."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np

from alexnet_jax.errors import InputError
from alexnet_jax.files import check_writable, replacing

SUFFIXES = ('.npz', '.parquet')
Batches = Iterable[tuple[np.ndarray, np.ndarray]]  # features (b, ...) and labels (b,), of evaluation.features


@dataclasses.dataclass(frozen=True, kw_only=True)
class About:
    """What belongs to features.

    Attributes:
      layer: the stage, 'fc7/dropout'.
      network: where its weights came from.
      images: what they are: a dataset's name and split, or 'files'.
      names: of each image its file, or None where they are records of a dataset, in order.
      labels: int32 (n,), -1 where an image's class is not known; None: those that come with the features.
      classes: their names.
    """

    layer: str
    network: str
    images: str
    names: Sequence[str] | None
    labels: np.ndarray | None
    classes: Sequence[str]


def check_output(path: str | pathlib.Path) -> pathlib.Path:
    """The path, if it ends as one of SUFFIXES in a folder that is there; `InputError` where not."""
    path = pathlib.Path(path)
    if path.suffix not in SUFFIXES:
        raise InputError(f'--output={path}: the name must end in {" or ".join(SUFFIXES)}')
    check_writable(path, option='--output')
    return path


def write_features(path: pathlib.Path, batches: Batches, about: About, *, shape: Sequence[int]) -> None:
    """Writes all rows of `batches`, whole or not at all.

    In .npz: features float32 (n, *shape), labels, records int64 (n,) or files (n,), classes, layer, network, images.
    In .parquet, which is written batch by batch: columns record or file, label, class, and features, a list of
    prod(shape) float32 in row-major order; the rest, with the shape, in the schema's metadata.

    Raises:
      InputError: the disk does not take it.
    """
    with replacing(path) as file:
        if path.suffix == '.npz':
            _write_npz(file, batches, about)
        else:
            _write_parquet(file, batches, about, shape)


def _labelled(batches: Batches, about: About) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Each batch with the number of its first image and the labels that count."""
    start = 0
    for rows, labels in batches:
        yield start, rows, labels if about.labels is None else about.labels[start : start + len(rows)]
        start += len(rows)


def _write_npz(file: BinaryIO, batches: Batches, about: About) -> None:
    _, rows, labels = zip(*_labelled(batches, about), strict=True)
    arrays: dict[str, Any] = {'features': np.concatenate(rows), 'labels': np.concatenate(labels)}
    if about.names is None:
        arrays['records'] = np.arange(len(arrays['labels']))
    else:
        arrays['files'] = np.array(about.names, dtype=np.str_)
    arrays |= {key: np.array(getattr(about, key)) for key in ('classes', 'layer', 'network', 'images')}
    np.savez(file, **arrays)


def _write_parquet(file: BinaryIO, batches: Batches, about: About, shape: Sequence[int]) -> None:
    import pyarrow as pa  # here, because few ask for it
    import pyarrow.parquet as pq

    size, of_files = int(np.prod(shape)), about.names is not None
    metadata = {key: getattr(about, key) for key in ('layer', 'network', 'images')}
    metadata |= {'shape': json.dumps(list(shape)), 'classes': json.dumps(list(about.classes))}
    name = ('file', pa.string()) if of_files else ('record', pa.int64())
    columns = [name, ('label', pa.int32()), ('class', pa.string()), ('features', pa.list_(pa.float32(), size))]
    schema = pa.schema(columns, metadata=metadata)
    with pq.ParquetWriter(file, schema) as writer:
        for start, rows, labels in _labelled(batches, about):
            end = start + len(rows)
            known = [None if label < 0 else int(label) for label in labels]
            cells = [
                pa.array(about.names[start:end] if about.names is not None else range(start, end), schema.types[0]),
                pa.array(known, pa.int32()),
                pa.array([None if label is None else about.classes[label] for label in known], pa.string()),
                pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), size),
            ]
            writer.write_batch(pa.record_batch(cells, schema=schema))
