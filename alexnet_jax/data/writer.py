"""Makes prepared datasets: from a folder of images, the embedded dataset, ImageNet's archives, or a TFDS dataset.

Everything is written to a hidden folder beside the final one, which it becomes by one rename at the very end: a dataset
that exists is whole. A run that is killed leaves the hidden folder; the same command run again goes on from it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
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

from alexnet_jax import InputError
from alexnet_jax.data import feasibility
from alexnet_jax.data.conversion import cores
from alexnet_jax.data.items import Plan
from alexnet_jax.data.manifest import write_manifest
from alexnet_jax.data.shards import SHARD, Progress, Shards
from alexnet_jax.data.source import STATISTICS_FILE, VERSION

MANY = 8192  # images, whose disk space is worth an estimate beforehand
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

    def text(self) -> str:
        """A few lines for people."""
        speed = sum(self.splits.values()) / self.seconds
        return '\n'.join(
            [
                f'{"split":12}{"images":>10}{"MB":>10}',
                *(f'{split:12}{count:10,}{self.megabytes[split]:10.1f}' for split, count in self.splits.items()),
                f'{len(self.classes)} classes, {self.seconds:.1f} s, {speed:.0f} images/s: {self.directory}',
            ]
        )

    def remarks(self) -> tuple[str, ...]:
        """What a person should know besides."""
        return (*self.notes, *(f'skipped {reason}' for reason in self.skipped))

    def fields(self) -> dict[str, Any]:
        """The same for programs."""
        fields = {key: getattr(self, key) for key in ('name', 'classes', 'splits', 'fingerprint', 'seconds')}
        return fields | {'directory': str(self.directory), 'skipped': len(self.skipped)}


def prepare(
    plan: Plan,
    *,
    data_dir: str | os.PathLike[str],
    skip_unusable: bool = False,
    overwrite: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """Makes DATA_DIR/NAME/1.0.0 of a plan, going on from what a killed run of the same plan has left.

    Args:
      plan: what is to be made (`plans`).
      data_dir: the folder of prepared datasets.
      skip_unusable: leave unusable files out instead of failing after all were looked at.
      overwrite: replace an existing dataset.
      workers: processes; None is one a core.
      progress: called as images are finished.

    Raises:
      InputError: it exists already, data_dir cannot be written or is full, unusable images, nothing left of a class.
    """
    start = time.monotonic()
    directory = check_free(plan.name, data_dir=data_dir, overwrite=overwrite)
    with _hidden_folder(pathlib.Path(data_dir), plan.name) as hidden, _tfds_kept_quiet():
        shards = Shards(plan, hidden)
        left = sum(len(items) for items in plan.splits.values()) - shards.seen
        if left > MANY:
            feasibility.check(plan, data_dir=data_dir, left=left)
        try:
            shards.write(workers=workers or cores(), progress=progress)
            skipped = _check(plan, shards, skip=skip_unusable)
        except BaseException as error:
            if shards.seen < SHARD:  # nothing that is worth keeping
                shutil.rmtree(hidden)
            # ArrayRecord's writer has no error of its own for it.
            if isinstance(error, (OSError, RuntimeError)) and os.strerror(errno.ENOSPC) in str(error):
                raise InputError(
                    f'the disk of {data_dir} is full; the same command goes on when there is space'
                ) from error
            raise
        data = shards.assemble()
        fingerprint = _seal(data, plan, shards)
        directory.parent.mkdir(exist_ok=True)
        if directory.exists():
            directory.rename(hidden / 'old')
        data.rename(directory)
        shutil.rmtree(hidden)
    sizes = {split: sum(size for _, _, size in state.shards) for split, state in shards.splits.items()}
    return Prepared(
        name=plan.name,
        directory=directory,
        classes=plan.classes,
        splits={split: state.records for split, state in shards.splits.items()},
        megabytes={split: size / 1e6 for split, size in sizes.items()},
        skipped=skipped,
        notes=plan.notes,
        fingerprint=fingerprint,
        seconds=time.monotonic() - start,
    )


def _check(plan: Plan, shards: Shards, *, skip: bool) -> tuple[str, ...]:
    """What was left out, if that is allowed and leaves enough."""
    states = shards.splits.items()
    unusable = [f'{split}/{key}: {reason}' for split, state in states for key, reason in state.unusable]
    skipped = (*plan.unusable, *sorted(unusable))
    if skipped and not skip:
        raise InputError(
            f'{len(skipped)} unusable files ({_first(skipped, "; ")}); repair or remove them, or pass --on_error=skip'
        )
    absent = [split for split, state in states if not state.records]
    if not absent and plan.every_class:
        counts = zip(plan.classes, shards.statistics.class_counts, strict=True)
        absent = [f'train/{name}' for name, count in counts if not count]
    if absent:
        raise InputError(f'no usable image is left of {_first(absent, ", ")}; add some')
    return skipped


def _first(names: Sequence[str], separator: str) -> str:
    more = f' and {len(names) - NAMED_UNUSABLE} more' if len(names) > NAMED_UNUSABLE else ''
    return separator.join(names[:NAMED_UNUSABLE]) + more


def check_free(name: str, *, data_dir: str | os.PathLike[str], overwrite: bool) -> pathlib.Path:
    """The folder of dataset `name`, which is not there yet unless it may be replaced; `InputError` otherwise."""
    if not re.fullmatch(r'[a-z][a-z0-9_]*', name):
        raise InputError(f'--name={name!r} must be lower-case letters, digits and underscores, a letter first')
    directory = pathlib.Path(data_dir) / name / VERSION
    if directory.exists() and not overwrite:
        raise InputError(f'{directory} exists already; pass --overwrite to replace it')
    return directory


@contextlib.contextmanager
def _hidden_folder(data_dir: pathlib.Path, name: str) -> Iterator[pathlib.Path]:
    """Gives DATA_DIR/.NAME.partial, perhaps with what a killed run left there, to one process at a time.

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
            yield hidden
        finally:
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


def _seal(data: pathlib.Path, plan: Plan, shards: Shards) -> str:
    """Adds statistics.npz and manifest.json; returns the fingerprint."""
    statistics = shards.statistics
    np.savez(
        data / STATISTICS_FILE,
        mean_image=statistics.mean_image(),
        rgb_covariance=statistics.rgb_covariance(),
        image_count=statistics.images,
        pixel_count=statistics.images * statistics.image_sum[..., 0].size,
        class_counts=statistics.class_counts,
    )
    if plan.originals is None:
        return write_manifest(data)
    splits = {}
    for split, state in shards.splits.items():
        excluded = sorted(int(key) for key, _ in state.unusable)
        splits[split] = {'name': plan.originals.splits[split], 'records': state.seen, 'excluded': excluded}
    originals = {'directory': plan.originals.directory, 'splits': splits}
    return write_manifest(data, originals=originals)
