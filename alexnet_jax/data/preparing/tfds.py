"""Specifies a dataset from a TFDS image classification dataset, which its own builder makes where it is missing."""

import contextlib
import functools
import os
import platform
import sys
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds

from alexnet_jax.data.photo import photo_to_record, square_image
from alexnet_jax.data.preparing.dataset_spec import DatasetSpec, Example, get_hashed_order, hash_recipe, make_encoding
from alexnet_jax.data.preprocessing import PAPER
from alexnet_jax.errors import InputError

PACKAGE = 'tensorflow-cpu' if platform.machine() == 'x86_64' else 'tensorflow'  # the former has no wheels for ARM
TENSORFLOW = f'run `pip install {PACKAGE}` (needed only for this)'


class TfdsSplit:
    """The records of one split as examples whose source is the encoded image, read when asked for.

    Stored as ArrayRecord, in the order of `dataset_spec.ListedSplit`; otherwise, as most datasets of other projects
    are, in stored order, read by TensorFlow.
    """

    def __init__(self, builder: Any, split: str, *, own_name: str) -> None:
        """Opens `split` of a prepared builder, which is `own_name` in the prepared dataset."""
        self._builder, self.name, self._own_name = builder, split, own_name

    def __len__(self) -> int:
        return self._builder.info.splits[self.name].num_examples

    def iter_examples(self, start: int = 0) -> Iterator[Example]:
        """Yields the examples from index `start` on; `InputError` when a label is not one of the classes."""
        class_count = self._builder.info.features['label'].num_classes
        for index, record in self.iter_records(start):
            label = int(record['label'])
            if not 0 <= label < class_count:
                where = f'{self._builder.info.full_name}, split {self.name}, record {index}'
                raise InputError(f'{where}: label {label} is not one of {class_count} classes')
            yield Example(f'{index:08d}', label, record['image'])

    def iter_records(self, start: int = 0) -> Iterator[tuple[int, Any]]:
        """Yields index and record of the examples from `start` on, with images as they are stored: workers decode."""
        decoders = {'image': tfds.decode.SkipDecoding()}
        if has_random_access(self._builder):
            source = self._builder.as_data_source(self.name, decoders=decoders)
            for index in get_hashed_order(self._own_name, [f'{index:08d}' for index in range(len(self))])[start:]:
                yield index, source[index]
            return
        in_order = tfds.ReadConfig(interleave_cycle_length=1)
        try:
            records = self._builder.as_dataset(self.name, decoders=decoders, read_config=in_order)
        except ImportError as error:
            stored = f'{self._builder.data_dir} is stored as {self._builder.info.file_format.value}'
            raise InputError(f'{stored}, which only TensorFlow reads: {TENSORFLOW}') from error
        yield from enumerate(tfds.as_numpy(records.skip(start)), start)


def has_random_access(builder: Any) -> bool:
    """Tells whether the records of a builder can be read by index, without TensorFlow."""
    return builder.info.file_format == tfds.core.FileFormat.ARRAY_RECORD


def make_tfds_spec(
    builder: Any,
    *,
    dataset: str,
    name: str,
    quality: int | None,
    record_size: int,
    keep_originals: bool,
    preprocessing: str = PAPER,
) -> DatasetSpec:
    """Makes the spec of a prepared TFDS dataset; 'validation' is its validation split, or else its test split.

    The records are to be JPEGs of `quality` 1..100, or where it is None raw, `record_size` pixels wide and high, made
    by `preprocessing`. With `keep_originals` they stay where they are, and training makes squares of that size: only
    statistics are wanted, and which are unusable.

    Raises:
      InputError: not images with labels, no validation or test split; `dataset` is what the message calls it.
    """
    info, directory = builder.info, os.fspath(builder.data_dir)
    features = dict(info.features.items()) if isinstance(info.features, tfds.features.FeaturesDict) else {}
    image, label = features.get('image'), features.get('label')
    if not isinstance(image, tfds.features.Image) or not isinstance(label, tfds.features.ClassLabel):
        raise InputError(
            f'{dataset} is not image classification: it needs features image (Image) and label (ClassLabel)'
        )
    splits, notes = _choose_splits(dataset, builder)
    form: Any = {'record_size': record_size, 'preprocessing': preprocessing}
    to_record: Any = functools.partial(photo_to_record, quality=quality, **form)
    encoding, originals = make_encoding(quality, record_size=record_size), None
    if keep_originals:
        if not has_random_access(builder):
            stored = info.file_format.value
            raise InputError(f'{directory} is stored as {stored}, which cannot be read by index: prepare it')
        originals = (directory, {own: split.name for own, split in splits.items()})
        to_record, encoding = bytes, {'decode': functools.partial(square_image, **form)}
    sizes = [(split, stored.num_examples, stored.num_bytes) for split, stored in info.splits.items()]
    facts = (name, quality, *form.values(), keep_originals, info.full_name, directory, sizes)
    return DatasetSpec(
        name=name,
        classes=tuple(label.names),
        splits=splits,
        to_record=to_record,
        **encoding,
        **form,
        originals=originals,
        recipe=hash_recipe('tfds', *facts),
        notes=tuple(notes),
    )


def _choose_splits(dataset: str, builder: Any) -> tuple[dict[str, TfdsSplit], list[str]]:
    """Chooses the splits to prepare, by their names in the prepared dataset; returns them and notes for the user."""
    found, notes = list(builder.info.splits), []
    if 'train' not in found or not {'validation', 'test'} & set(found):
        raise InputError(f'{dataset} has splits {", ".join(found)}; train and validation (or test) are needed')
    chosen = {split: split for split in ('train', 'validation', 'test') if split in found}
    if 'validation' not in found:
        chosen = {'train': 'train', 'validation': 'test'}
        notes.append(f'{dataset} has no validation split: its test split is used as validation')
    splits = {own: TfdsSplit(builder, split, own_name=own) for own, split in chosen.items()}
    if 'test' in splits and int(next(splits['test'].iter_records())[1]['label']) < 0:  # -1 is TFDS's for a secret
        del splits['test']
        notes.append(f'{dataset} keeps the labels of its test split secret: left out')
    return splits, notes


def find_builder(dataset: str, *, tfds_dir: str | os.PathLike[str]) -> Any:
    """Finds the builder of a TFDS dataset, prepared or not; `InputError` when there is none."""
    try:
        return tfds.builder(dataset, data_dir=os.path.expanduser(tfds_dir))
    except (tfds.core.DatasetNotFoundError, ValueError, AssertionError) as error:  # the last: no such version
        reason = str(error).strip().splitlines()[0]
        raise InputError(f'TFDS has no dataset {dataset!r}, nor is it in {tfds_dir}: {reason}') from error


def make_tfds_dataset(builder: Any, *, dataset: str, manual_dir: str | os.PathLike[str] | None) -> None:
    """Has the builder make its dataset if it is missing; it may download it, and most need TensorFlow.

    Raises:
      InputError: TensorFlow is missing, or the archives in `manual_dir`, or whatever else TFDS says.
    """
    if builder.is_prepared():
        return
    config = tfds.download.DownloadConfig(manual_dir=manual_dir)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # standard output is for results
            builder.download_and_prepare(download_config=config, file_format='array_record')
    except ImportError as error:
        needed = error.name or 'a module'
        raise InputError(f'making {dataset} needs {needed}, which is not installed: {TENSORFLOW}') from error
    except (AssertionError, OSError, ValueError, RuntimeError) as error:  # archives absent, network, disk
        raise InputError(f'TFDS could not make {dataset}: {" ".join(str(error).split())}') from error
