"""Specifies a dataset that has the records of a prepared one as raw pixels: those that training makes of its JPEGs."""

import functools
import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from alexnet_jax.data.dataset import STATISTICS_FILE, Dataset, DataSource
from alexnet_jax.data.decode import decode_record_crop
from alexnet_jax.data.preparing.dataset_spec import DatasetSpec, Example, hash_recipe, make_encoding
from alexnet_jax.data.raw import RAW
from alexnet_jax.data.record_names import find_record_names
from alexnet_jax.errors import InputError


class StoredRecord(NamedTuple):
    """A record of a prepared dataset."""

    where: str  # for messages
    jpeg: bytes


class RecordSplit:
    """The records of one split, in their order."""

    def __init__(self, dataset: Dataset, split: str) -> None:
        records = dataset.records(split)
        assert isinstance(records, DataSource)  # encoded, as `make_rewriting_spec` has looked
        self._records, self._where = records, f'dataset {dataset.name}, split {split}'
        self.names = find_record_names(dataset, split)

    def __len__(self) -> int:
        return len(self._records)

    def iter_examples(self, start: int = 0) -> Iterator[Example]:
        """Yields the examples from index `start` on."""
        for index in range(start, len(self)):
            jpeg, label = self._records[index]
            key = f'{index:08d}' if self.names is None else self.names[index]
            yield Example(key, label, StoredRecord(f'{self._where}, record {index}', jpeg))


def make_rewriting_spec(dataset: Dataset, *, name: str) -> DatasetSpec:
    """Makes the spec of `dataset` with raw records, under another name: the pixels that training makes of its JPEGs.

    Raises:
      InputError: the dataset has no JPEG records.
    """
    if dataset.encoding == RAW:
        raise InputError(f'{dataset.name} has raw records already: name one of JPEG records')
    if dataset.photos:
        raise InputError(
            f'{dataset.name} has no records, its images are where TFDS keeps them: prepare them with --dataset '
            'and --encoding=raw, which gives the pixels that training makes of them'
        )
    size = dataset.record_size
    splits = {split: RecordSplit(dataset, split) for split in dataset.splits}
    return DatasetSpec(
        name=name,
        classes=dataset.classes,
        splits=splits,
        to_record=functools.partial(decode_record, record_size=size),
        **make_encoding(None, record_size=size),
        record_size=size,
        version=dataset.directory.name,
        preprocessing=dataset.preprocessing,
        recipe=hash_recipe('rewriting', name, dataset.fingerprint, dataset.directory.name),
        rewritten_from=(dataset.fingerprint, os.fspath(dataset.directory / STATISTICS_FILE)),
        named=all(split.names is not None for split in splits.values()),
    )


def decode_record(record: StoredRecord, *, record_size: int) -> bytes:
    """Decodes a whole record as training does."""
    pixels = np.empty((record_size, record_size, 3), np.uint8)
    try:
        decode_record_crop(record.jpeg, pixels, record_size=record_size)
    except InputError as error:
        raise InputError(f'{record.where}: {error}') from error
    return pixels.tobytes()
