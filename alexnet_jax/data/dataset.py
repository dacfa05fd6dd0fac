"""Opens a prepared dataset: records by index, class names, and the training split's statistics.

Reads a plain TFDS ArrayRecord dataset (docs/data.md has the layout) and never imports TensorFlow.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import tensorflow_datasets as tfds

from alexnet_jax.console import info
from alexnet_jax.data.preprocessing import PAPER, PREPROCESSINGS
from alexnet_jax.data.statistics import read_statistics
from alexnet_jax.data.versions import VERSION, VERSIONS
from alexnet_jax.errors import InputError
from alexnet_jax.files import check_utf8, hash_file
from alexnet_jax.model.spec import Variant

STATISTICS_FILE, MANIFEST_FILE = 'statistics.npz', 'manifest.json'
# Raised when an older reader would misread a dataset. 2 is a dataset whose images stay where TFDS keeps them.
FORMAT_VERSION, ORIGINALS_VERSION = 1, 2
SMALL = 16_000_000  # bytes: what opening a dataset reads and hashes, a few milliseconds


class DataSource:
    """Reads the records of one split by index: `len(records)`, `records[i] -> (jpeg, label)`.

    `jpeg` is the bytes of a square RGB JPEG, or where `photos` of an image of any size and format, which training makes
    a square of each time; `label` an int in [0, classes). Any number of threads may read; a pickled copy opens its own
    files.
    """

    def __init__(
        self,
        name: str,
        split: str,
        *,
        data_source: Any,
        class_count: int,
        photos: bool = False,
        preprocessing: str = PAPER,
        excluded: Sequence[int] = (),
        data_dir: pathlib.Path | None = None,
    ) -> None:
        """Wraps a TFDS data source of {'image': bytes, 'label': int}, without the records `excluded`.

        `preprocessing` made its squares, or makes them. `data_dir` is where it is, for messages; None: its default.
        """
        self._name, self._split, self._class_count = name, split, class_count
        self._data_source, self.photos, self.preprocessing = data_source, photos, preprocessing
        self._where = '' if data_dir is None else f' --data_dir={shlex.quote(str(data_dir))}'
        self._indices = np.delete(np.arange(len(data_source)), list(excluded))

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        """Reads JPEG bytes and label; `InputError` when the label is not one of the classes."""
        if not 0 <= index < len(self):  # also what ends a `for` loop
            raise IndexError(f'{self._name} {self._split} has {len(self)} records, asked for {index}')
        record_name = f'dataset {self._name}, split {self._split}, record {index}'
        try:
            record = self._data_source[int(self._indices[index])]
        except (RuntimeError, ValueError, OSError) as error:  # what ArrayRecord makes of a damaged or missing shard
            raise InputError(
                f'{record_name} cannot be read: {str(error).splitlines()[0][:200]}; look at all of it with '
                f'`alexnet prepare --verify={self._name}{self._where}`'
            ) from error
        label, count = int(record['label']), self._class_count
        if not 0 <= label < count:
            outside = f'label {label} is outside the {count} classes'
            raise InputError(f'{record_name}: {outside}; prepare it again with --overwrite')
        return record['image'], label


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A prepared dataset on disk."""

    name: str
    directory: pathlib.Path  # the version folder, one of VERSIONS, such as data/demo/1.0.0
    classes: tuple[str, ...]  # names, in label order
    # Of the training split, or of the validation split where there is no other: weights to be tested bring their own.
    mean_image: np.ndarray  # float32 (record_size, record_size, 3), 0..255
    rgb_covariance: np.ndarray  # float64 (3, 3), 0..255 squared, over all pixels
    fingerprint: str  # of everything that training reads (see `compute_fingerprint`)
    photos: bool  # whether the images stay where TFDS keeps them, of any size
    preprocessing: str  # how they were made squares, or are (data/preprocessing.py)
    splits: Mapping[str, Mapping[str, Any]]  # name where the images are, records there, indices of those excluded
    builder: Any  # of the TFDS dataset that holds the images

    @property
    def record_size(self) -> int:
        """Returns the side of the records in pixels."""
        return len(self.mean_image)

    def check_variant(self, variant: Variant) -> Self:
        """Returns the dataset; `InputError` where the network's crops come from records of another size."""
        own, wanted = self.record_size, variant.record_size
        if own != wanted:
            raise InputError(
                f'{self.name} has records of {own}x{own}, and {variant.name} reads {wanted}x{wanted}: prepare its '
                f'images with --size={wanted}, or name another dataset or network'
            )
        return self

    def _get_split(self, split: str) -> Mapping[str, Any]:
        if split == 'train' and split not in self.splits:
            raise InputError(
                f'dataset {self.name} was prepared to test weights only: prepare it again without --validation_only'
            )
        if split not in self.splits:
            raise InputError(f'dataset {self.name} has no split {split!r}; it has {", ".join(sorted(self.splits))}')
        return self.splits[split]

    def examples(self, split: str) -> int:
        """Counts the images of `split`; `InputError` when there is no such split."""
        stored = self._get_split(split)
        return stored['records'] - len(stored['excluded'])

    def records(self, split: str, *, preprocessing: str | None = None) -> DataSource:
        """Opens the records of `split`; `preprocessing` None: as in training. `InputError` where they are no such."""
        stored, chosen = self._get_split(split), preprocessing or self.preprocessing
        if not self.photos and chosen != self.preprocessing:
            raise InputError(
                f'the records of {self.name} were made by --preprocessing={self.preprocessing}: prepare its images '
                f'with --preprocessing={chosen}, under another --name'
            )
        return DataSource(
            self.name,
            split,
            data_source=self.builder.as_data_source(stored['name'], decoders={'image': tfds.decode.SkipDecoding()}),
            class_count=len(self.classes),
            photos=self.photos,
            preprocessing=chosen,
            excluded=stored['excluded'],
            data_dir=self.directory.parent.parent,
        )


def open_dataset(name: str, *, data_dir: str | os.PathLike[str]) -> Dataset:
    """Opens DATA_DIR/NAME/VERSION, as written by `alexnet prepare`; the newest of VERSIONS that is there.

    Checks the size of every file and the sha256 of the small ones; `verify_dataset` reads the shards too.

    Raises:
      InputError: not prepared, prepared by something else, or damaged.
    """
    check_utf8(data_dir, option='--data_dir')
    root = pathlib.Path(data_dir)
    prepare = f'alexnet prepare --dataset={name} --data_dir={shlex.quote(str(root))}'
    try:
        exists = bool(name) and (root / name).is_dir()
    except OSError as error:  # too long a name, a folder that may not be entered
        raise InputError(f'cannot look for dataset {name!r} in {root}: {error.strerror}') from error
    if not exists:
        raise InputError(
            f'no dataset {name!r} in {root} (prepared there: {", ".join(list_datasets(root)) or "none"}); '
            f'make it with `{prepare}`, or from a folder of images with `--images=DIR --name={name}`'
        )
    directories = [root / name / version for version in VERSIONS]
    directory = next((path for path in directories if (path / MANIFEST_FILE).is_file()), None)
    if directory is None:
        raise InputError(f'{root / name} has no mean image and RGB covariance of ours; run `{prepare}`')
    remedy = f'prepare it again with `{prepare} --overwrite` (or --images, if it came from a folder)'
    manifest = read_dataset_manifest(directory, remedy=remedy)
    mean_image, rgb_covariance = read_statistics(directory / STATISTICS_FILE, remedy=remedy)
    originals = manifest.get('originals')
    if originals and not pathlib.Path(originals['directory']).is_dir():
        raise InputError(f'{originals["directory"]}, which holds the images, is gone; {remedy}')
    if originals and directory.name != VERSION:
        info(
            f'{name} was prepared when photographs were resized by another library: what is read differs from then by '
            f'0.1 of 255 levels in the mean, by a few at edges; to have statistics of the same resizing, {remedy}'
        )
    builder = tfds.builder_from_directory(originals['directory'] if originals else directory)
    counts = {split: info.num_examples for split, info in builder.info.splits.items()}
    if originals:
        splits = originals['splits']
        for split, expected in ((stored['name'], stored['records']) for stored in splits.values()):
            if (found := counts.get(split, 0)) != expected:
                place = f'{originals["directory"]}, split {split},'
                raise InputError(f'{place} has {found} images and had {expected}; {remedy}')
    else:
        splits = {split: {'name': split, 'records': count, 'excluded': ()} for split, count in counts.items()}
        image = builder.info.features['image']
        if image.shape != mean_image.shape or image.encoding_format != 'jpeg':
            wanted = f'{len(mean_image)}x{len(mean_image)} JPEG like its mean image'
            raise InputError(f'{directory} holds {image.shape} {image.encoding_format}, not {wanted}; {remedy}')
        needed = {manifest.get('statistics_of', 'train'), 'validation'}
        if absent := [split for split in sorted(needed) if split not in splits]:
            raise InputError(f'{directory} has no {absent[0]} split; {remedy}')
    return Dataset(
        name=name,
        directory=directory,
        classes=tuple(builder.info.features['label'].names),
        mean_image=mean_image,
        rgb_covariance=rgb_covariance,
        fingerprint=compute_fingerprint(manifest['files']),
        photos=bool(originals),
        preprocessing=manifest.get('preprocessing', PAPER),
        splits=splits,
        builder=builder,
    )


def list_datasets(data_dir: str | os.PathLike[str]) -> list[str]:
    """Lists the names of the datasets in `data_dir` that `open_dataset` can open, sorted."""
    root = pathlib.Path(data_dir)
    return sorted({p.parent.parent.name for version in VERSIONS for p in root.glob(f'[!.]*/{version}/{MANIFEST_FILE}')})


def verify_dataset(
    name: str, *, data_dir: str | os.PathLike[str], progress: Callable[[str, int, int], None] | None = None
) -> Dataset:
    """Opens a dataset and reads every byte of it again; `progress` gets 'verified', the files read, and all files.

    Raises:
      InputError: what `open_dataset` raises, or a file does not have its sha256.
    """
    dataset = open_dataset(name, data_dir=data_dir)
    files = read_dataset_manifest(dataset.directory, remedy='prepare it again with --overwrite')['files']
    damaged = []
    for done, (file, entry) in enumerate(files.items(), 1):
        if hash_file(dataset.directory / file) != entry['sha256']:
            damaged.append(file)
        if progress is not None:
            progress('verified', done, len(files))
    if damaged:
        raise InputError(f'{dataset.directory} is damaged: {", ".join(damaged)}; prepare it again with --overwrite')
    return dataset


def write_dataset_manifest(
    directory: pathlib.Path, *, originals: Any = None, statistics_of: str = 'train', preprocessing: str = PAPER
) -> str:
    """Adds manifest.json to a finished folder, with the split that the statistics are of; returns the fingerprint."""
    files = {
        path.name: {'sha256': hash_file(path), 'bytes': path.stat().st_size}
        for path in sorted(directory.iterdir())
        if path.name not in (MANIFEST_FILE, 'dataset_info.json')  # the latter describes the writer, not the content
    }
    fingerprint = compute_fingerprint(files)
    manifest = {'format_version': FORMAT_VERSION, 'fingerprint': fingerprint, 'files': files}
    if statistics_of != 'train':
        manifest['statistics_of'] = statistics_of
    if preprocessing != PAPER:
        manifest['preprocessing'] = preprocessing
    if originals is not None:
        manifest |= {'format_version': ORIGINALS_VERSION, 'originals': dict(originals)}
    (directory / MANIFEST_FILE).write_text(json.dumps(manifest, indent=2) + '\n')
    return fingerprint


def read_dataset_manifest(directory: pathlib.Path, *, remedy: str) -> dict[str, Any]:
    """Reads the manifest of a dataset; checks the size of every file, and the sha256 of the small ones.

    Raises:
      InputError: of another format, or damaged; ends with `remedy`.
    """
    try:
        manifest = json.loads((directory / MANIFEST_FILE).read_text())
        known = manifest['format_version'] in (FORMAT_VERSION, ORIGINALS_VERSION)
        if manifest.get('preprocessing', PAPER) not in PREPROCESSINGS:
            raise ValueError(manifest['preprocessing'])
        for file, entry in manifest['files'].items() if known else ():
            if pathlib.PurePath(file).name != file or type(entry['bytes']) is not int or not entry['sha256']:
                raise ValueError(file)  # a file elsewhere is none of the dataset's
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f'{directory / MANIFEST_FILE} is damaged; {remedy}') from error
    if not known:
        found = manifest['format_version']
        raise InputError(f'{directory} has format {found!r}, not {FORMAT_VERSION} or {ORIGINALS_VERSION}; {remedy}')
    for file, entry in manifest['files'].items():
        path = directory / file
        if not path.is_file() or path.stat().st_size != entry['bytes']:
            raise InputError(f'{path} is missing or not of its {entry["bytes"]} bytes; {remedy}')
        if entry['bytes'] < SMALL and 'array_record' not in file and hash_file(path) != entry['sha256']:
            raise InputError(f'{path} has changed since it was written; {remedy}')
    return manifest


def compute_fingerprint(files: Mapping[str, Mapping[str, Any]]) -> str:
    """Computes the sha256, in hex, of names and hashes of a manifest's files: shards, features, labels, statistics."""
    lines = ''.join(f'{files[name]["sha256"]}  {name}\n' for name in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()
