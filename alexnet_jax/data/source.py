"""Opens a prepared dataset: records by index, class names, and the training split's statistics.

Reads a plain TFDS ArrayRecord dataset (docs/data.md has the layout) and never imports TensorFlow.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from alexnet_jax import InputError
from alexnet_jax.data.manifest import MANIFEST_FILE, damaged_files, fingerprint_of, read_manifest
from alexnet_jax.model.variants import Variant

VERSION = '1.0.0'  # the version folder's name
STATISTICS_FILE = 'statistics.npz'


class Records:
    """The records of one split, by index: `len(records)`, `records[i] -> (jpeg, label)`.

    `jpeg` is the bytes of a square RGB JPEG, or of an image of any size and format where `photos`; `label` an int in
    [0, classes). Any number of threads may read; a pickled copy opens its own files.

    Attributes:
      photos: whether the images are as TFDS keeps them: training makes squares of them each time.
    """

    def __init__(
        self,
        name: str,
        split: str,
        *,
        data_source: Any,
        class_count: int,
        photos: bool = False,
        excluded: Sequence[int] = (),
    ) -> None:
        """Wraps a TFDS data source of {'image': bytes, 'label': int}, without the records `excluded`."""
        self._name = name
        self._split = split
        self._data_source = data_source
        self._class_count = class_count
        self._usable = np.delete(np.arange(len(data_source)), excluded) if len(excluded) else None
        self.photos = photos

    def __len__(self) -> int:
        """How many images the split has."""
        return len(self._data_source if self._usable is None else self._usable)

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        """JPEG bytes and label; `InputError` when the label is not one of the classes."""
        if not 0 <= index < len(self):  # also what ends a `for` loop
            raise IndexError(f'{self._name} {self._split} has {len(self)} records, asked for {index}')
        try:
            record = self._data_source[index if self._usable is None else int(self._usable[index])]
        except (RuntimeError, ValueError, OSError) as error:  # what ArrayRecord makes of a damaged or missing shard
            raise InputError(
                f'dataset {self._name}, split {self._split}, record {index} cannot be read: '
                f'{str(error).splitlines()[0][:200]}; look at all of it with `python -m alexnet_jax.prepare '
                f'--verify={self._name}`'
            ) from error
        label = int(record['label'])
        if not 0 <= label < self._class_count:
            raise InputError(
                f'dataset {self._name}, split {self._split}, record {index}: label {label} is outside the '
                f'{self._class_count} classes; prepare it again with --overwrite'
            )
        return record['image'], label


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A prepared dataset on disk.

    Attributes:
      name: its TFDS name.
      directory: the version folder, such as data/demo/1.0.0.
      classes: class names, in label order.
      mean_image: float32 (record_size, record_size, 3), 0..255, the mean of the training split.
      rgb_covariance: float64 (3, 3), units of 0..255 squared, over all pixels of the training split.
      fingerprint: sha256 in hex of everything that training reads (see `manifest.fingerprint_of`).
      originals: of a dataset whose images stay where TFDS keeps them, the manifest's entry: its directory, and for
        each split the name there, the records there, and those excluded. None where the images are beside it.
    """

    name: str
    directory: pathlib.Path
    classes: tuple[str, ...]
    mean_image: np.ndarray
    rgb_covariance: np.ndarray
    fingerprint: str
    originals: dict[str, Any] | None = None

    @property
    def record_size(self) -> int:
        """Side of the records in pixels."""
        return len(self.mean_image)

    def read_by(self, variant: Variant) -> Dataset:
        """The dataset itself; `InputError` where its records are of another size than the network's crops come from."""
        own, wanted = self.record_size, variant.record_size
        if own != wanted:
            raise InputError(
                f'{self.name} has records of {own}x{own}, and {variant.name} reads {wanted}x{wanted}: prepare its '
                f'images with --size={wanted}, or name another dataset or network'
            )
        return self

    @functools.cached_property
    def _builder(self) -> Any:
        return tfds.builder_from_directory(self.originals['directory'] if self.originals else self.directory)

    def examples(self, split: str) -> int:
        """How many images `split` has; `InputError` when there is no such split."""
        splits = self.originals['splits'] if self.originals else self._builder.info.splits
        if split not in splits:
            raise InputError(f'dataset {self.name} has no split {split!r}; it has {", ".join(sorted(splits))}')
        if self.originals:
            return splits[split]['records'] - len(splits[split]['excluded'])
        return splits[split].num_examples

    def records(self, split: str) -> Records:
        """The records of `split` ('train', 'validation'), for random access."""
        self.examples(split)
        there: dict[str, Any] = self.originals['splits'][split] if self.originals else {'name': split, 'excluded': ()}
        return Records(
            self.name,
            split,
            data_source=self._builder.as_data_source(there['name'], decoders={'image': tfds.decode.SkipDecoding()}),
            class_count=len(self.classes),
            photos=self.originals is not None,
            excluded=there['excluded'],
        )


def open_dataset(name: str, *, data_dir: str | os.PathLike[str]) -> Dataset:
    """Opens DATA_DIR/NAME/1.0.0, as written by `python -m alexnet_jax.prepare`.

    Checks that every file is there with its size, and the sha256 of the small ones; `verify` reads the shards too.

    Args:
      name: dataset name, such as 'demo'.
      data_dir: the folder of prepared datasets.

    Raises:
      InputError: not prepared, prepared by something else, or damaged.
    """
    root = pathlib.Path(data_dir)
    directory = root / name / VERSION
    prepare = f'python -m alexnet_jax.prepare --dataset={name} --data_dir={root}'
    try:
        there = bool(name) and (root / name).is_dir()
    except OSError as error:  # too long a name, a folder that may not be entered
        raise InputError(f'cannot look for dataset {name!r} in {root}: {error.strerror}') from error
    if not there:
        found = ', '.join(prepared_datasets(root)) or 'none'
        raise InputError(
            f'no dataset {name!r} in {root} (prepared there: {found}); make it with `{prepare}`, '
            f'or from a folder of images with `--images=DIR --name={name}`'
        )
    if not (directory / MANIFEST_FILE).is_file():
        raise InputError(f'{root / name} has no mean image and RGB covariance of ours; run `{prepare}`')
    again = f'prepare it again with `{prepare} --overwrite` (or --images, if it came from a folder)'
    manifest = read_manifest(directory, remedy=again)
    mean_image, rgb_covariance = _statistics(directory / STATISTICS_FILE, remedy=again)
    if originals := manifest.get('originals'):
        builder = _opened_originals(originals, remedy=again)
    else:
        builder = tfds.builder_from_directory(directory)
        image = builder.info.features['image']
        if image.shape != mean_image.shape or image.encoding_format != 'jpeg':
            wanted = f'{len(mean_image)}x{len(mean_image)} JPEG like its mean image'
            raise InputError(f'{directory} holds {image.shape} {image.encoding_format}, not {wanted}; {again}')
        for split in ('train', 'validation'):
            if split not in builder.info.splits:
                raise InputError(f'{directory} has no {split} split; {again}')
    return Dataset(
        name=name,
        directory=directory,
        classes=tuple(builder.info.features['label'].names),
        mean_image=mean_image,
        rgb_covariance=rgb_covariance,
        fingerprint=fingerprint_of(manifest['files']),
        originals=originals,
    )


def _statistics(path: pathlib.Path, *, remedy: str) -> tuple[np.ndarray, np.ndarray]:
    """The mean image, float32, and the RGB covariance; nothing is unpickled, whatever the file holds."""
    try:
        with np.load(path, allow_pickle=False) as statistics:
            mean_image, rgb_covariance = statistics['mean_image'], statistics['rgb_covariance']
            shapes, kinds = (mean_image.shape, rgb_covariance.shape), mean_image.dtype.kind + rgb_covariance.dtype.kind
            if shapes != ((*2 * mean_image.shape[:1], 3), (3, 3)) or not mean_image.size or kinds != 'ff':
                raise ValueError(f'it has {shapes} of {kinds}')
    # The middle ones are what NumPy makes of one array, or of none, in place of several.
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OSError,
        EOFError,
        MemoryError,
        zipfile.BadZipFile,
    ) as error:
        raise InputError(f'{path} does not hold a mean image and an RGB covariance; {remedy}') from error
    return mean_image.astype(np.float32), rgb_covariance


def _opened_originals(originals: dict[str, Any], *, remedy: str) -> Any:
    """The builder of the dataset that holds the images, still of as many records as when they were looked at."""
    directory = originals['directory']
    if not pathlib.Path(directory).is_dir():
        raise InputError(f'{directory}, which holds the images, is gone; {remedy}')
    builder = tfds.builder_from_directory(directory)
    for there in originals['splits'].values():
        found = builder.info.splits[there['name']].num_examples if there['name'] in builder.info.splits else 0
        if found != there['records']:
            raise InputError(
                f'{directory}, split {there["name"]}, has {found} images and had {there["records"]}; {remedy}'
            )
    return builder


def prepared_datasets(data_dir: str | os.PathLike[str]) -> list[str]:
    """Names of the datasets in `data_dir` that `open_dataset` can open, sorted."""
    return sorted(path.parent.parent.name for path in pathlib.Path(data_dir).glob(f'[!.]*/{VERSION}/{MANIFEST_FILE}'))


def verify(
    name: str, *, data_dir: str | os.PathLike[str], progress: Callable[[str, int, int], None] | None = None
) -> Dataset:
    """Opens a dataset and reads every byte of it again; `progress` as in `manifest.damaged_files`.

    Raises:
      InputError: what `open_dataset` raises, or a file is not what its sha256 says.
    """
    dataset = open_dataset(name, data_dir=data_dir)
    if damaged := damaged_files(dataset.directory, progress=progress):
        raise InputError(f'{dataset.directory} is damaged: {", ".join(damaged)}; prepare it again with --overwrite')
    return dataset
