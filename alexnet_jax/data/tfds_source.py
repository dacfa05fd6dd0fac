"""Plans a dataset from a TFDS image classification dataset, which is made by its own builder where it must."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Iterator
from typing import Any

import simplejpeg
import tensorflow_datasets as tfds

from alexnet_jax import InputError
from alexnet_jax.data.items import Item, Originals, Plan, hashed_order, recipe_of
from alexnet_jax.data.photo import QUALITY, photo_to_jpeg, square_image
from alexnet_jax.data.statistics import RECORD

TENSORFLOW = 'run `pip install tensorflow-cpu` (needed only for this)'


class TfdsSplit:
    """The records of one split as items whose source is the encoded image, read when asked for.

    Stored as ArrayRecord, in the order of `items.ListedSplit`; otherwise, as most datasets of other projects are, as
    they come, read by TensorFlow.
    """

    def __init__(self, builder: Any, split: str, *, ours: str) -> None:
        """Opens `split` of a prepared builder; `ours` is its name here."""
        self._builder = builder
        self.name = split
        self._ours = ours
        self._class_count = builder.info.features['label'].num_classes
        self._decoders = {'image': tfds.decode.SkipDecoding()}  # as stored: workers decode it

    def __len__(self) -> int:
        return self._builder.info.splits[self.name].num_examples

    def items(self, start: int = 0) -> Iterator[Item]:
        """The items from place `start` on; `InputError` when a label is not one of the classes."""
        for index, record in self._records(start):
            label = int(record['label'])
            if not 0 <= label < self._class_count:
                where = f'{self._builder.info.full_name}, split {self.name}, record {index}'
                raise InputError(f'{where}: label {label} is not one of {self._class_count} classes')
            yield Item(f'{index:08d}', label, record['image'])

    def labelled(self) -> bool:
        """Whether the first record has a label: TFDS writes -1 where a test set keeps its labels secret."""
        return int(next(self._records(0))[1]['label']) >= 0

    def _records(self, start: int) -> Iterator[tuple[int, Any]]:
        if stored_as_array_record(self._builder):
            source = self._builder.as_data_source(self.name, decoders=self._decoders)
            for index in hashed_order(self._ours, [f'{index:08d}' for index in range(len(self))])[start:]:
                yield index, source[index]
            return
        in_order = tfds.ReadConfig(interleave_cycle_length=1)
        try:
            records = self._builder.as_dataset(self.name, decoders=self._decoders, read_config=in_order)
        except ImportError as e:
            stored = self._builder.info.file_format.value
            raise InputError(
                f'{self._builder.data_dir} is stored as {stored}, which only TensorFlow reads: {TENSORFLOW}'
            ) from e
        yield from enumerate(tfds.as_numpy(records.skip(start)), start)


def stored_as_array_record(builder: Any) -> bool:
    """Whether the records of a builder can be read by index, without TensorFlow."""
    return builder.info.file_format == tfds.core.FileFormat.ARRAY_RECORD


def plan(
    builder: Any,
    *,
    dataset: str,
    name: str,
    quality: int = QUALITY,
    record_size: int = RECORD,
    keep_originals: bool = False,
) -> Plan:
    """The dataset that a TFDS dataset would make; 'validation' is its validation split, or else its test split.

    Args:
      builder: of the dataset, prepared.
      dataset: its name, for messages.
      name: of the result.
      quality: JPEG quality of the records, 1..100.
      record_size: their side in pixels; of originals, the side of the squares that training makes of them.
      keep_originals: leave the images where they are: only their statistics are wanted, and which are unusable.

    Raises:
      InputError: not images with labels, no validation or test split.
    """
    features = builder.info.features
    named = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
    image, label = named.get('image'), named.get('label')
    if not isinstance(image, tfds.features.Image) or not isinstance(label, tfds.features.ClassLabel):
        raise InputError(
            f'{dataset} is not image classification: it needs features image (Image) and label (ClassLabel)'
        )
    splits, notes = _splits_of(dataset, builder)
    sizes = [(split, info.num_examples, info.num_bytes) for split, info in builder.info.splits.items()]
    originals = None
    if keep_originals:
        if not stored_as_array_record(builder):
            stored = builder.info.file_format.value
            raise InputError(f'{builder.data_dir} is stored as {stored}, which cannot be read by index: prepare it')
        originals = Originals(os.fspath(builder.data_dir), {ours: split.name for ours, split in splits.items()})
    return Plan(
        name=name,
        classes=tuple(label.names),
        splits=splits,
        to_record=bytes if originals else functools.partial(photo_to_jpeg, quality=quality, record_size=record_size),
        decode=functools.partial(square_image, record_size=record_size) if originals else simplejpeg.decode_jpeg,
        record_size=record_size,
        originals=originals,
        recipe=recipe_of(
            'tfds',
            name,
            quality,
            record_size,
            keep_originals,
            builder.info.full_name,
            os.fspath(builder.data_dir),
            sizes,
        ),
        notes=tuple(notes),
    )


def _splits_of(dataset: str, builder: Any) -> tuple[dict[str, TfdsSplit], list[str]]:
    found, notes = list(builder.info.splits), []
    if 'train' not in found or not {'validation', 'test'} & set(found):
        raise InputError(f'{dataset} has splits {", ".join(found)}; train and validation (or test) are needed')
    if 'validation' in found:
        chosen = {split: split for split in ('train', 'validation', 'test') if split in found}
    else:
        chosen = {'train': 'train', 'validation': 'test'}
        notes.append(f'{dataset} has no validation split: its test split is used as validation')
    splits = {ours: TfdsSplit(builder, theirs, ours=ours) for ours, theirs in chosen.items()}
    if 'test' in splits and not splits['test'].labelled():
        del splits['test']
        notes.append(f'{dataset} keeps the labels of its test split secret: left out')
    return splits, notes


def find_builder(dataset: str, *, tfds_dir: str | os.PathLike[str]) -> Any:
    """The builder of a TFDS dataset, prepared or not; `InputError` when there is none."""
    try:
        return tfds.builder(dataset, data_dir=os.path.expanduser(tfds_dir))
    except (tfds.core.DatasetNotFoundError, ValueError, AssertionError) as e:  # the last: no such version
        reason = str(e).strip().splitlines()[0]
        raise InputError(f'TFDS has no dataset {dataset!r}, nor is it in {tfds_dir}: {reason}') from e


def make(builder: Any, *, dataset: str, manual_dir: str | os.PathLike[str] | None) -> None:
    """Has the builder make its dataset where it has not; it may download it, and most need TensorFlow.

    Args:
      builder: of the dataset.
      dataset: its name, for messages.
      manual_dir: folder of the archives that TFDS cannot download.

    Raises:
      InputError: TensorFlow or the archives are missing, or whatever else TFDS says.
    """
    if builder.is_prepared():
        return
    config = tfds.download.DownloadConfig(manual_dir=manual_dir)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # standard output is for results
            builder.download_and_prepare(download_config=config, file_format='array_record')
    except ImportError as e:
        raise InputError(f'making {dataset} needs {e.name or "a module"}, which is not installed: {TENSORFLOW}') from e
    except (AssertionError, OSError, ValueError, RuntimeError) as e:  # archives absent, network, disk
        raise InputError(f'TFDS could not make {dataset}: {" ".join(str(e).split())}') from e
