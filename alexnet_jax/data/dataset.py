"""Opens a prepared dataset: records by index, class names, and the training split's statistics.

Reads a plain TFDS ArrayRecord dataset or one of raw records (docs/data.md has the layouts); never imports TensorFlow.
"""

import dataclasses
import os
import pathlib
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import tensorflow_datasets as tfds

from alexnet_jax.console import info
from alexnet_jax.data import raw
from alexnet_jax.data.cache import CachedSource, check_memory
from alexnet_jax.data.corrupted import PixelSource
from alexnet_jax.data.dataset_manifest import MANIFEST_FILE, compute_fingerprint, read_dataset_manifest
from alexnet_jax.data.preprocessing import PAPER
from alexnet_jax.data.raw import JPEG, RAW
from alexnet_jax.data.statistics import read_statistics
from alexnet_jax.data.versions import VERSION, VERSIONS
from alexnet_jax.errors import InputError
from alexnet_jax.files import check_utf8, hash_file
from alexnet_jax.model.spec import Variant

STATISTICS_FILE = 'statistics.npz'
KEPT = ('train', 'validation')  # the splits that training reads, which `keep_in_memory` keeps


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
        self._verify = _format_verify(name, data_dir)
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
                f'`{self._verify}`'
            ) from error
        label, count = int(record['label']), self._class_count
        if not 0 <= label < count:
            outside = f'label {label} is outside the {count} classes'
            raise InputError(f'{record_name}: {outside}; prepare it again with --overwrite')
        return record['image'], label


Source = DataSource | raw.RawSource | CachedSource | PixelSource  # of a split's records: encoded, or pixels


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
    # Of each its records where the images are, indices of those excluded, and its name there or its shards' records.
    splits: Mapping[str, Mapping[str, Any]]
    builder: Any  # of the TFDS dataset that holds the images; None: raw records
    encoding: str = JPEG  # of the records, or 'raw': pixels as they are
    rewritten_from: str | None = None  # fingerprint of the dataset whose records these are, in the other encoding
    cached: dict[tuple[str, str], CachedSource] | None = None  # where `keep_in_memory` keeps them, by split and form

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

    def keep_in_memory(self, *, processes: int = 1) -> Self:
        """Returns the dataset whose records stay in memory, of KEPT, each decoded when it is first read.

        Raw records are pixels already, which the system keeps in memory by itself: theirs is returned as it is.

        Raises:
          InputError: they need more memory than is free, where so many `processes` of this machine keep them each.
        """
        if self.encoding == RAW:
            return self
        records = sum(self.examples(split) for split in KEPT if split in self.splits)
        check_memory(records, record_size=self.record_size, processes=processes)
        return dataclasses.replace(self, cached={})

    def records(self, split: str, *, preprocessing: str | None = None) -> Source:
        """Opens the records of `split`.

        `preprocessing` None: as in training. `InputError` where they are no such, or a raw shard is damaged.
        """
        stored, chosen = self._get_split(split), preprocessing or self.preprocessing
        if not self.photos and chosen != self.preprocessing:
            raise InputError(
                f'the records of {self.name} were made by --preprocessing={self.preprocessing}: prepare its images '
                f'with --preprocessing={chosen}, under another --name'
            )
        data_dir = self.directory.parent.parent
        if self.encoding == RAW:
            return self._open_raw(split, f'look at all of it with `{_format_verify(self.name, data_dir)}`')
        if self.cached is not None and (split, chosen) in self.cached:
            return self.cached[split, chosen]
        source = DataSource(
            self.name,
            split,
            data_source=self.builder.as_data_source(stored['name'], decoders={'image': tfds.decode.SkipDecoding()}),
            class_count=len(self.classes),
            photos=self.photos,
            preprocessing=chosen,
            excluded=stored['excluded'],
            data_dir=data_dir,
        )
        if self.cached is None or split not in KEPT:
            return source
        return self.cached.setdefault((split, chosen), CachedSource(source, record_size=self.record_size))

    def _open_raw(self, split: str, remedy: str) -> raw.RawSource:
        counts, labels_path = self.splits[split]['shards'], self.directory / raw.get_labels_name(split)
        labels = raw.read_labels(labels_path, records=sum(counts), class_count=len(self.classes), remedy=remedy)
        paths = [self.directory / raw.get_shard_name(split, i, len(counts)) for i in range(len(counts))]
        shards, form = list(zip(paths, counts, strict=True)), {'preprocessing': self.preprocessing, 'remedy': remedy}
        return raw.RawSource(self.name, split, shards=shards, labels=labels, record_size=self.record_size, **form)


def _format_verify(name: str, data_dir: pathlib.Path | None) -> str:
    """Formats the command that reads all of a dataset; `data_dir` None: its default."""
    return f'alexnet prepare --verify={name}' + (
        '' if data_dir is None else f' --data_dir={shlex.quote(str(data_dir))}'
    )


def open_dataset(name: str, *, data_dir: str | os.PathLike[str]) -> Dataset:
    """Opens DATA_DIR/NAME/VERSION, as written by `alexnet prepare`; the newest of VERSIONS that is there.

    Checks the size of every file and the sha256 of the small ones; `verify_dataset` reads the shards too.

    Raises:
      InputError: not prepared, prepared by something else, or damaged.
    """
    check_utf8(data_dir, option='--data_dir')
    root = pathlib.Path(data_dir)
    origin = name.removesuffix('_raw')  # which `alexnet prepare --from` gives a name
    made = f'--dataset={name}' if origin == name else f'--from={origin} --encoding=raw'
    prepare = f'alexnet prepare {made} --data_dir={shlex.quote(str(root))}'
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
    remedy = f'prepare it again with `{prepare} --overwrite` (or --images, --from, --encoding, as it was made)'
    manifest = read_dataset_manifest(directory, remedy=remedy)
    mean_image, rgb_covariance = read_statistics(directory / STATISTICS_FILE, remedy=remedy)
    stored: dict[str, Any] = {}
    if 'raw' in manifest:
        stored['splits'] = raw.list_splits(manifest, record_size=len(mean_image), remedy=remedy)
        stored |= {'classes': raw.read_classes(directory, remedy=remedy), 'builder': None, 'encoding': RAW}
        stored['rewritten_from'] = manifest['raw'].get('rewritten_from')
    else:
        builder, splits = _open_tfds(directory, manifest, mean_image.shape, remedy=remedy)
        stored |= {'splits': splits, 'classes': tuple(builder.info.features['label'].names), 'builder': builder}
    needed = {manifest.get('statistics_of', 'train'), 'validation'}
    if absent := [split for split in sorted(needed) if split not in stored['splits']]:
        raise InputError(f'{directory} has no {absent[0]} split; {remedy}')
    return Dataset(
        name=name,
        directory=directory,
        mean_image=mean_image,
        rgb_covariance=rgb_covariance,
        fingerprint=compute_fingerprint(manifest['files']),
        photos='originals' in manifest,
        preprocessing=manifest.get('preprocessing', PAPER),
        **stored,
    )


def _open_tfds(
    directory: pathlib.Path, manifest: Mapping[str, Any], shape: tuple[int, ...], *, remedy: str
) -> tuple[Any, Mapping[str, Any]]:
    """Opens the TFDS dataset that holds the images, JPEGs of `shape` or originals; returns builder and splits."""
    originals = manifest.get('originals')
    if originals and not pathlib.Path(originals['directory']).is_dir():
        raise InputError(f'{originals["directory"]}, which holds the images, is gone; {remedy}')
    if originals and directory.name != VERSION:
        info(
            f'{directory.parent.name} was prepared when photographs were resized by another library: what is read '
            f'differs from then by 0.1 of 255 levels in the mean, by a few at edges; to have statistics of the same '
            f'resizing, {remedy}'
        )
    builder = tfds.builder_from_directory(originals['directory'] if originals else directory)
    counts = {split: found.num_examples for split, found in builder.info.splits.items()}
    if not originals:
        image = builder.info.features['image']
        if image.shape != shape or image.encoding_format != 'jpeg':
            wanted = f'{shape[0]}x{shape[0]} JPEG like its mean image'
            raise InputError(f'{directory} holds {image.shape} {image.encoding_format}, not {wanted}; {remedy}')
        return builder, {split: {'name': split, 'records': count, 'excluded': ()} for split, count in counts.items()}
    for split, expected in ((stored['name'], stored['records']) for stored in originals['splits'].values()):
        if (found := counts.get(split, 0)) != expected:
            place = f'{originals["directory"]}, split {split},'
            raise InputError(f'{place} has {found} images and had {expected}; {remedy}')
    return builder, originals['splits']


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
