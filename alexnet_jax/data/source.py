"""Opens a prepared dataset: records by index, class names, and the training split's statistics.

Reads a plain TFDS ArrayRecord dataset (docs/data.md has the layout) and never imports TensorFlow.
"""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from alexnet_jax import InputError
from alexnet_jax.data.builder import VERSION
from alexnet_jax.data.statistics import IMAGE_SHAPE

FORMAT_VERSION = 1  # of manifest.json and statistics.npz; raised when an older reader would misread them
STATISTICS_FILE = 'statistics.npz'
MANIFEST_FILE = 'manifest.json'


class Records:
    """The records of one split, by index: `len(records)`, `records[i] -> (jpeg, label)`.

    `jpeg` is the bytes of a 256 x 256 RGB JPEG; `label` an int in [0, classes). Any number of threads may
    read; a pickled copy opens its own files.
    """

    def __init__(self, name: str, split: str, *, data_source: Any, class_count: int) -> None:
        """Wraps a TFDS data source of {'image': bytes, 'label': int}."""
        self._name = name
        self._split = split
        self._data_source = data_source
        self._class_count = class_count

    def __len__(self) -> int:
        """How many images the split has."""
        return len(self._data_source)

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        """JPEG bytes and label; `InputError` when the label is not one of the classes."""
        if not 0 <= index < len(self):  # also what ends a `for` loop
            raise IndexError(f'{self._name} {self._split} has {len(self)} records, asked for {index}')
        record = self._data_source[index]
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
      mean_image: float32 (256, 256, 3), 0..255, the mean of the training split.
      rgb_covariance: float64 (3, 3), units of 0..255 squared, over all pixels of the training split.
      fingerprint: sha256 in hex of everything that training reads (see `fingerprint_of`).
    """

    name: str
    directory: pathlib.Path
    classes: tuple[str, ...]
    mean_image: np.ndarray
    rgb_covariance: np.ndarray
    fingerprint: str

    @functools.cached_property
    def _builder(self) -> Any:
        return tfds.builder_from_directory(self.directory)

    def examples(self, split: str) -> int:
        """How many images `split` has; `InputError` when there is no such split."""
        if split not in self._builder.info.splits:
            found = ', '.join(sorted(self._builder.info.splits))
            raise InputError(f'dataset {self.name} has no split {split!r}; it has {found}')
        return self._builder.info.splits[split].num_examples

    def records(self, split: str) -> Records:
        """The records of `split` ('train', 'validation'), for random access."""
        self.examples(split)
        data_source = self._builder.as_data_source(split, decoders={'image': tfds.decode.SkipDecoding()})
        return Records(self.name, split, data_source=data_source, class_count=len(self.classes))


def open_dataset(name: str, *, data_dir: str | os.PathLike[str]) -> Dataset:
    """Opens DATA_DIR/NAME/1.0.0, as written by `python -m alexnet_jax.prepare`.

    Checks that every file is there with its size; hashing the contents again is left to whoever doubts the
    disk (`sha256sum` against manifest.json).

    Args:
      name: dataset name, such as 'demo'.
      data_dir: the folder of prepared datasets.

    Raises:
      InputError: not prepared, prepared by something else, or damaged.
    """
    root = pathlib.Path(data_dir)
    directory = root / name / VERSION
    prepare = f'python -m alexnet_jax.prepare --dataset={name} --data_dir={root}'
    if not name or not (root / name).is_dir():
        found = ', '.join(prepared_datasets(root)) or 'none'
        raise InputError(
            f'no dataset {name!r} in {root} (prepared there: {found}); make it with `{prepare}`, '
            f'or from a folder of images with `--images=DIR --name={name}`'
        )
    if not (directory / MANIFEST_FILE).is_file():
        raise InputError(f'{root / name} has no mean image and RGB covariance of ours; run `{prepare}`')
    again = f'prepare it again with `{prepare} --overwrite` (or --images, if it came from a folder)'
    manifest = json.loads((directory / MANIFEST_FILE).read_text())
    if manifest['format_version'] != FORMAT_VERSION:
        raise InputError(f'{directory} has format {manifest["format_version"]}, not {FORMAT_VERSION}; {again}')
    for file, entry in manifest['files'].items():
        path = directory / file
        if not path.is_file() or path.stat().st_size != entry['bytes']:
            raise InputError(f'{path} is missing or not of its {entry["bytes"]} bytes; {again}')

    builder = tfds.builder_from_directory(directory)
    image = builder.info.features['image']
    if image.shape != IMAGE_SHAPE or image.encoding_format != 'jpeg':
        raise InputError(f'{directory} holds {image.shape} {image.encoding_format}, not 256 x 256 JPEG; {again}')
    for split in ('train', 'validation'):
        if split not in builder.info.splits:
            raise InputError(f'{directory} has no {split} split; {again}')
    with np.load(directory / STATISTICS_FILE) as statistics:
        mean_image = statistics['mean_image'].astype(np.float32)
        rgb_covariance = statistics['rgb_covariance']
    return Dataset(
        name=name,
        directory=directory,
        classes=tuple(builder.info.features['label'].names),
        mean_image=mean_image,
        rgb_covariance=rgb_covariance,
        fingerprint=fingerprint_of(manifest['files']),
    )


def prepared_datasets(data_dir: str | os.PathLike[str]) -> list[str]:
    """Names of the datasets in `data_dir` that `open_dataset` can open, sorted."""
    return sorted(path.parent.parent.name for path in pathlib.Path(data_dir).glob(f'[!.]*/{VERSION}/{MANIFEST_FILE}'))


def fingerprint_of(files: dict[str, dict[str, Any]]) -> str:
    """sha256 in hex over the names and hashes of a manifest's files: shards, features, labels, statistics."""
    lines = ''.join(f'{files[name]["sha256"]}  {name}\n' for name in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()
