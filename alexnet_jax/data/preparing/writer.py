"""Writes prepared datasets: from a folder of images, the embedded dataset, ImageNet's archives, or a TFDS dataset.

Everything is written to a hidden folder beside the final one, which it becomes by one rename at the very end: a dataset
that exists is whole. A run that is killed leaves the hidden folder; the same command run again goes on from it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import io
import os
import pathlib
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from alexnet_jax.data.dataset import STATISTICS_FILE, VERSION
from alexnet_jax.data.fingerprint import write_dataset_manifest
from alexnet_jax.data.preparing.dataset_spec import DatasetSpec
from alexnet_jax.data.preparing.estimate import estimate_preparation
from alexnet_jax.data.preparing.shards import SHARD, Progress, Shards
from alexnet_jax.data.preparing.workers import count_cores
from alexnet_jax.errors import InputError
from alexnet_jax.files import try_lock

MANY = 8192  # images, whose disk space is worth an estimate beforehand
NAMED_UNUSABLE = 10  # how many files or classes an error names before it only counts


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A dataset that was written.

    Attributes:
      name: dataset name.
      directory: its version folder.
      classes: class names, in label order.
      splits: split -> images.
      megabytes: split -> size of its shards in 10**6 bytes.
      skipped: 'split/class/file: reason' of every image left out.
      notes: sentences that the user should read, one for each image left out among them.
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

    def format_text(self) -> str:
        """Formats a few lines for people."""
        speed = sum(self.splits.values()) / self.seconds
        return '\n'.join(
            [
                f'{"split":12}{"images":>10}{"MB":>10}',
                *(f'{split:12}{count:10,}{self.megabytes[split]:10.1f}' for split, count in self.splits.items()),
                f'{len(self.classes)} classes, {self.seconds:.1f} s, {speed:.0f} images/s: {self.directory}',
            ]
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the same for programs."""
        fields = {key: getattr(self, key) for key in ('name', 'classes', 'splits', 'fingerprint', 'seconds')}
        return fields | {'directory': str(self.directory), 'skipped': len(self.skipped)}


def prepare(
    spec: DatasetSpec,
    *,
    data_dir: str | os.PathLike[str],
    skip_unusable: bool = False,
    overwrite: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """Writes DATA_DIR/NAME/1.0.0, going on from what a killed run of the same spec has left.

    Args:
      spec: of the dataset (`sources.make_spec`).
      data_dir: the folder of prepared datasets.
      skip_unusable: leave unusable files out instead of failing after all were looked at.
      overwrite: replace an existing dataset.
      workers: processes; None is one a core.
      progress: called as images are finished.

    Raises:
      InputError: it exists already, data_dir cannot be written or is full, unusable images, nothing left of a class.
    """
    start = time.monotonic()
    directory = check_name(spec.name, data_dir=data_dir, overwrite=overwrite)
    with _open_hidden_folder(pathlib.Path(data_dir), spec.name) as hidden, _silence_tfds():
        shards = Shards(spec, hidden)
        if (remaining := spec.example_count - shards.finished) > MANY:
            estimate_preparation(spec, data_dir=data_dir, remaining=remaining)
        try:
            shards.write(workers=workers or count_cores(), progress=progress)
            skipped = _check_usable(spec, shards, skip=skip_unusable)
        except BaseException as error:
            if shards.finished < SHARD:  # nothing that is worth keeping
                shutil.rmtree(hidden)
            # ArrayRecord's writer has no error of its own for it.
            if isinstance(error, OSError | RuntimeError | InputError) and os.strerror(errno.ENOSPC) in str(error):
                raise InputError(
                    f'the disk of {data_dir} is full; the same command goes on when there is space'
                ) from error
            raise
        data = shards.assemble()
        fingerprint = _write_statistics(data, spec, shards)
        directory.parent.mkdir(exist_ok=True)
        if directory.exists():
            directory.rename(hidden / 'old')
        data.rename(directory)
        shutil.rmtree(hidden)
    states = shards.splits.items()
    return Prepared(
        name=spec.name,
        directory=directory,
        classes=spec.classes,
        splits={split: state.records for split, state in states},
        megabytes={split: sum(size for _, _, size in state.shards) / 1e6 for split, state in states},
        skipped=skipped,
        notes=(*spec.notes, *(f'skipped {reason}' for reason in skipped)),
        fingerprint=fingerprint,
        seconds=time.monotonic() - start,
    )


def _check_usable(spec: DatasetSpec, shards: Shards, *, skip: bool) -> tuple[str, ...]:
    """Returns what was left out; `InputError` if that is not allowed, or nothing is left of a split or class."""
    states = shards.splits.items()
    unusable = [f'{split}/{key}: {reason}' for split, state in states for key, reason in state.unusable]
    skipped = (*spec.unusable, *sorted(unusable))
    if skipped and not skip:
        files = _join_first(skipped, '; ')
        raise InputError(f'{len(skipped)} unusable files ({files}); repair or remove them, or pass --on_error=skip')
    absent = [split for split, state in states if not state.records]
    if not absent and spec.every_class:
        counts = zip(spec.classes, shards.statistics.class_counts, strict=True)
        absent = [f'train/{name}' for name, count in counts if not count]
    if absent:
        raise InputError(f'no usable image is left of {_join_first(absent, ", ")}; add some')
    return skipped


def _join_first(names: Sequence[str], separator: str) -> str:
    more = f' and {len(names) - NAMED_UNUSABLE} more' if len(names) > NAMED_UNUSABLE else ''
    return separator.join(names[:NAMED_UNUSABLE]) + more


def check_name(name: str, *, data_dir: str | os.PathLike[str], overwrite: bool) -> pathlib.Path:
    """Returns the folder of dataset `name`; `InputError` if it exists and may not be replaced, or for a bad name."""
    if not re.fullmatch(r'[a-z][a-z0-9_]*', name):
        raise InputError(f'--name={name!r} must be lower-case letters, digits and underscores, a letter first')
    directory = pathlib.Path(data_dir) / name / VERSION
    if directory.exists() and not overwrite:
        raise InputError(f'{directory} exists already; pass --overwrite to replace it')
    return directory


@contextlib.contextmanager
def _open_hidden_folder(data_dir: pathlib.Path, name: str) -> Iterator[pathlib.Path]:
    """Gives DATA_DIR/.NAME.partial, perhaps with what a killed run left there, to one process at a time."""
    lock = data_dir / f'.{name}.lock'
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        lock_file = try_lock(lock)
    except OSError as error:
        raise InputError(f'cannot write to {data_dir} ({error.strerror}); choose another --data_dir') from error
    if lock_file is None:
        raise InputError(f'another process is preparing {name} in {data_dir}; wait for it')
    with lock_file:
        try:
            yield data_dir / f'.{name}.partial'
        finally:
            lock.unlink()


@contextlib.contextmanager
def _silence_tfds() -> Iterator[None]:
    """Silences TFDS's own bars and messages, which name the hidden folder."""
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()


def _write_statistics(data: pathlib.Path, spec: DatasetSpec, shards: Shards) -> str:
    """Adds statistics.npz and manifest.json; returns the fingerprint."""
    statistics = shards.statistics
    np.savez(
        data / STATISTICS_FILE,
        mean_image=statistics.mean_image(),
        rgb_covariance=statistics.rgb_covariance(),
        image_count=statistics.image_count,
        pixel_count=statistics.pixel_count,
        class_counts=statistics.class_counts,
    )
    if spec.originals is None:
        return write_dataset_manifest(data)
    directory, names = spec.originals
    splits = {}
    for split, state in shards.splits.items():
        excluded = sorted(int(key) for key, _ in state.unusable)
        splits[split] = {'name': names[split], 'records': state.seen, 'excluded': excluded}
    return write_dataset_manifest(data, originals={'directory': directory, 'splits': splits})
