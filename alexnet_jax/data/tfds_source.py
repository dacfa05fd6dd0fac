"""Finds a TFDS image classification dataset, makes it if it must, and lists its records for the writer."""

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow_datasets as tfds

from alexnet_jax import InputError
from alexnet_jax.data.builder import Item


class TfdsItems(Sequence[Item]):
    """The records of one split as items whose source is the encoded image, read when asked for."""

    def __init__(self, builder: Any, split: str) -> None:
        """Opens `split` of a builder prepared as ArrayRecord."""
        self._where = f'{builder.info.full_name}, split {split}'
        self._class_count = builder.info.features['label'].num_classes
        decoders = {'image': tfds.decode.SkipDecoding()}  # as stored: workers decode it
        self._records = builder.as_data_source(split, decoders=decoders)

    def __len__(self) -> int:
        """How many images the split has."""
        return len(self._records)

    def __getitem__(self, index: Any) -> Any:
        """The item; `InputError` when its label is not one of the classes."""
        record = self._records[index]
        label = int(record['label'])
        if not 0 <= label < self._class_count:
            raise InputError(f'{self._where}, record {index}: label {label} is not one of {self._class_count} classes')
        return Item(f'{index:08d}', label, record['image'])

    def __iter__(self) -> Iterator[Item]:
        """All items in order, one in memory at a time."""
        return (self[index] for index in range(len(self)))

    def labelled(self) -> bool:
        """Whether the first record has a label: TFDS writes -1 where a test set keeps its labels secret."""
        return int(self._records[0]['label']) >= 0


def splits_of(
    dataset: str, *, tfds_dir: str | os.PathLike[str], manual_dir: str | os.PathLike[str] | None
) -> tuple[tuple[str, ...], dict[str, TfdsItems], list[str]]:
    """Returns class names, items of 'train', 'validation' (and 'test'), and notes for the user.

    Args and errors as `writer.prepare_tfds`.
    """
    builder = _prepared_builder(dataset, tfds_dir=os.fspath(tfds_dir), manual_dir=manual_dir)
    features = builder.info.features
    named = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
    image, label = named.get('image'), named.get('label')
    if not isinstance(image, tfds.features.Image) or not isinstance(label, tfds.features.ClassLabel):
        raise InputError(
            f'{dataset} is not image classification: it needs features image (Image) and label (ClassLabel)'
        )
    found, notes = list(builder.info.splits), []
    if 'train' not in found or not {'validation', 'test'} & set(found):
        raise InputError(f'{dataset} has splits {", ".join(found)}; train and validation (or test) are needed')
    if 'validation' in found:
        chosen = {split: split for split in ('train', 'validation', 'test') if split in found}
    else:
        chosen = {'train': 'train', 'validation': 'test'}
        notes.append(f'{dataset} has no validation split: its test split is used as validation')
    splits = {ours: TfdsItems(builder, theirs) for ours, theirs in chosen.items()}
    if 'test' in splits and not splits['test'].labelled():
        del splits['test']
        notes.append(f'{dataset} keeps the labels of its test split secret: left out')
    return tuple(label.names), splits, notes


def _prepared_builder(dataset: str, *, tfds_dir: str, manual_dir: str | os.PathLike[str] | None) -> Any:
    try:
        builder = tfds.builder(dataset, data_dir=os.path.expanduser(tfds_dir))
    except (tfds.core.DatasetNotFoundError, ValueError, AssertionError) as e:  # the last: no such version
        reason = str(e).strip().splitlines()[0]
        raise InputError(f'TFDS has no dataset {dataset!r}, nor is it in {tfds_dir}: {reason}') from e
    if not builder.is_prepared():
        config = tfds.download.DownloadConfig(manual_dir=manual_dir)
        try:
            with contextlib.redirect_stdout(sys.stderr):  # standard output is for results
                builder.download_and_prepare(download_config=config, file_format='array_record')
        except ImportError as e:
            raise InputError(
                f'making {dataset} needs {e.name or "a module"}, which is not installed: '
                'run `pip install tensorflow-cpu` (needed only for this)'
            ) from e
        except (AssertionError, OSError, ValueError, RuntimeError) as e:  # archives absent, network, disk
            raise InputError(f'TFDS could not make {dataset}: {" ".join(str(e).split())}') from e
    if builder.info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
        raise InputError(
            f'{builder.data_dir} is stored as {builder.info.file_format.value}, not array_record; '
            'pass another --tfds_dir to make it anew'
        )
    return builder
