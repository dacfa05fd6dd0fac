"""Makes prepared datasets: from a folder of images, the embedded dataset, or a TFDS dataset.

Everything is written to a hidden folder beside the final one, which it becomes by one rename at the very end:
a dataset that exists is whole. A run that is killed leaves the hidden folder; the next run removes it.
"""

import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import io
import json
import os
import pathlib
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from alexnet_jax import InputError
from alexnet_jax.data import folder_source
from alexnet_jax.data.builder import VERSION, EmptySplit, ImageBuilder, Progress
from alexnet_jax.data.photo import QUALITY, photo_to_jpeg
from alexnet_jax.data.source import FORMAT_VERSION, MANIFEST_FILE, STATISTICS_FILE, fingerprint_of

NAMED_UNUSABLE = 10  # how many files or classes an error names before it only counts


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What was written.

    Attributes:
      name: dataset name.
      directory: its version folder.
      classes: class names, in label order.
      splits: split -> images.
      megabytes: split -> size of its shards in 10**6 bytes.
      skipped: 'split/class/file: reason' of every image left out.
      notes: sentences that the user should read.
      fingerprint: as `Dataset.fingerprint`.
      seconds: wall time.
    """

    name: str
    directory: pathlib.Path
    classes: tuple[str, ...]
    splits: dict[str, int]
    megabytes: dict[str, float]
    skipped: tuple[str, ...]
    notes: tuple[str, ...]
    fingerprint: str
    seconds: float


def prepare_demo(
    data_dir: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
    **counts: int,
) -> Prepared:
    """Renders the embedded dataset into DATA_DIR/demo/1.0.0.

    Args:
      data_dir: the folder of prepared datasets.
      overwrite: replace an existing one.
      workers: processes; None is one a core.
      progress: called as images are finished.
      **counts: images of each split (`train=`, `validation=`), if not the standard ones.

    Raises:
      InputError: it exists already, or data_dir cannot be written.
    """
    from alexnet_jax.data.demo import Demo  # here, because only this function renders

    make = functools.partial(Demo, workers=workers, progress=progress, **counts)
    return _write(make, 'demo', data_dir=data_dir, overwrite=overwrite)


def prepare_folder(
    images: str | os.PathLike[str],
    *,
    name: str,
    data_dir: str | os.PathLike[str],
    quality: int = QUALITY,
    skip_unusable: bool = False,
    overwrite: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """Converts IMAGES/{train,validation[,test]}/<class>/* into DATA_DIR/NAME/1.0.0.

    Args:
      images: the folder; its classes are the folders in train/, in sorted order.
      name: lower-case letters, digits and underscores.
      data_dir: the folder of prepared datasets.
      quality: JPEG quality of the records, 1..100.
      skip_unusable: leave unusable files out instead of failing after all were looked at.
      overwrite: replace an existing dataset.
      workers: processes; None is one a core.
      progress: called as images are finished.

    Raises:
      InputError: anything that is wrong with the folder or the files in it.
    """
    classes, splits, strangers, notes = folder_source.splits_of(pathlib.Path(images))
    make = functools.partial(
        ImageBuilder,
        name=name,
        classes=classes,
        splits=splits,
        to_jpeg=functools.partial(folder_source.file_to_jpeg, quality=quality),
        workers=workers,
        progress=progress,
    )
    return _write(
        make,
        name,
        data_dir=data_dir,
        overwrite=overwrite,
        skip=skip_unusable,
        unusable=strangers,
        notes=notes,
    )


def prepare_tfds(
    dataset: str,
    *,
    name: str | None = None,
    data_dir: str | os.PathLike[str],
    tfds_dir: str | os.PathLike[str],
    manual_dir: str | os.PathLike[str] | None = None,
    quality: int = QUALITY,
    skip_unusable: bool = False,
    overwrite: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """Converts a TFDS image classification dataset into DATA_DIR/NAME/1.0.0.

    'validation' is its own validation split, or else its test split.

    Args:
      dataset: TFDS name: 'imagenet2012', 'imagenet_resized/64x64'.
      name: name of the result; None is `dataset` with '/' as '_'.
      data_dir: the folder of prepared datasets.
      tfds_dir: where TFDS keeps datasets; one that is not there as ArrayRecord is made by its own builder,
        which may download it and for most datasets needs TensorFlow.
      manual_dir: folder of the archives that TFDS cannot download, such as ImageNet's.
      quality: as in `prepare_folder`, like the rest.
      skip_unusable: likewise.
      overwrite: likewise.
      workers: likewise.
      progress: likewise.

    Raises:
      InputError: no such dataset, not images with labels, no validation or test split, TensorFlow missing.
    """
    from alexnet_jax.data import tfds_source  # here, because only this function looks beyond data_dir

    name = name or re.sub(r'[/:.]', '_', dataset)
    _check_name(name, data_dir=data_dir, overwrite=overwrite)  # before hours of download
    classes, splits, notes = tfds_source.splits_of(dataset, tfds_dir=tfds_dir, manual_dir=manual_dir)
    make = functools.partial(
        ImageBuilder,
        name=name,
        classes=classes,
        splits=splits,
        to_jpeg=functools.partial(photo_to_jpeg, quality=quality),
        workers=workers,
        progress=progress,
    )
    return _write(
        make, name, data_dir=data_dir, overwrite=overwrite, skip=skip_unusable, notes=notes, every_class=False
    )


def _write(
    make: Callable[..., ImageBuilder],
    name: str,
    *,
    data_dir: str | os.PathLike[str],
    overwrite: bool,
    skip: bool = False,
    unusable: Sequence[str] = (),
    notes: Sequence[str] = (),
    every_class: bool = True,
) -> Prepared:
    """Builds the dataset in a hidden folder and moves it into place.

    `every_class` asks for a training image of each: a folder's classes are those that it has, but a TFDS dataset made
    from part of its archives still names them all.
    """
    start = time.monotonic()
    directory = _check_name(name, data_dir=data_dir, overwrite=overwrite)
    with _hidden_folder(pathlib.Path(data_dir), name) as hidden, _tfds_kept_quiet():
        builder = make(data_dir=hidden)
        lost = ''
        try:
            builder.download_and_prepare()
        except EmptySplit as e:  # told after the files that are the cause
            lost = str(e)
        skipped = [*unusable, *(f'{key}: {reason}' for key, reason in builder.unusable)]
        if skipped and not skip:
            raise InputError(
                f'{len(skipped)} unusable files ({_first(skipped, "; ")}); '
                'repair or remove them, or pass --on_error=skip'
            )
        counts = zip(builder.classes, builder.statistics.class_counts, strict=True)
        absent = [lost] if lost else [f'train/{name}' for name, count in counts if not count and every_class]
        if absent:
            raise InputError(f'no usable image is left of {_first(absent, ", ")}; add some')
        fingerprint = _seal(pathlib.Path(builder.data_dir), builder.statistics)
        directory.parent.mkdir(exist_ok=True)
        if directory.exists():
            directory.rename(hidden / 'old')
        pathlib.Path(builder.data_dir).rename(directory)
    sizes = {split: sum(p.stat().st_size for p in directory.glob(f'*-{split}.*')) for split in builder.counts}
    return Prepared(
        name=name,
        directory=directory,
        classes=builder.classes,
        splits=builder.counts,
        megabytes={split: size / 1e6 for split, size in sizes.items()},
        skipped=tuple(skipped),
        notes=tuple(notes),
        fingerprint=fingerprint,
        seconds=time.monotonic() - start,
    )


def _first(names: Sequence[str], separator: str) -> str:
    more = f' and {len(names) - NAMED_UNUSABLE} more' if len(names) > NAMED_UNUSABLE else ''
    return separator.join(names[:NAMED_UNUSABLE]) + more


def _check_name(name: str, *, data_dir: str | os.PathLike[str], overwrite: bool) -> pathlib.Path:
    if not re.fullmatch(r'[a-z][a-z0-9_]*', name):
        raise InputError(f'--name={name!r} must be lower-case letters, digits and underscores, a letter first')
    directory = pathlib.Path(data_dir) / name / VERSION
    if directory.exists() and not overwrite:
        raise InputError(f'{directory} exists already; pass --overwrite to replace it')
    return directory


@contextlib.contextmanager
def _hidden_folder(data_dir: pathlib.Path, name: str) -> Iterator[pathlib.Path]:
    """Gives an empty DATA_DIR/.NAME.partial, for one process at a time, and removes it at the end.

    The lock is the kernel's: it goes with its process, however that ends.
    """
    lock, hidden = data_dir / f'.{name}.lock', data_dir / f'.{name}.partial'
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        lock_file = lock.open('w')
    except OSError as e:
        raise InputError(f'cannot write to {data_dir} ({e.strerror}); choose another --data_dir') from e
    with lock_file:
        try:
            fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise InputError(f'another process is preparing {name} in {data_dir}; wait for it') from e
        try:
            if hidden.exists():  # a killed run's
                shutil.rmtree(hidden)
            hidden.mkdir()
            yield hidden
        finally:
            shutil.rmtree(hidden, ignore_errors=True)
            lock.unlink()


@contextlib.contextmanager
def _tfds_kept_quiet() -> Iterator[None]:
    """TFDS's own bars and messages speak of the hidden folder; ours take their place."""
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()


def _seal(directory: pathlib.Path, statistics: Any) -> str:
    """Adds statistics.npz and manifest.json; returns the fingerprint."""
    np.savez(
        directory / STATISTICS_FILE,
        mean_image=statistics.mean_image(),
        rgb_covariance=statistics.rgb_covariance(),
        image_count=statistics.images,
        pixel_count=statistics.images * statistics.image_sum[..., 0].size,
        class_counts=statistics.class_counts,
    )
    files = {}
    for path in sorted(directory.iterdir()):
        if path.name == 'dataset_info.json':  # describes the writer (module, TFDS version), not the content
            continue
        with path.open('rb') as f:
            files[path.name] = {
                'sha256': hashlib.file_digest(f, 'sha256').hexdigest(),
                'bytes': path.stat().st_size,
            }
    fingerprint = fingerprint_of(files)
    manifest = {'format_version': FORMAT_VERSION, 'fingerprint': fingerprint, 'files': files}
    (directory / MANIFEST_FILE).write_text(json.dumps(manifest, indent=2) + '\n')
    return fingerprint
