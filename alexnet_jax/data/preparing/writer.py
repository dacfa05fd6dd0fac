"""Writes prepared datasets: from a folder of images, the embedded dataset, ImageNet's archives, or a TFDS dataset.

Everything is written to a hidden folder beside the final one, which it becomes by one rename at the very end: a dataset
that exists is whole. A run that is killed leaves the hidden folder; the same command run again goes on from it.
"""

import contextlib
import dataclasses
import errno
import io
import os
import pathlib
import re
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from alexnet_jax.data.dataset import STATISTICS_FILE
from alexnet_jax.data.dataset_manifest import write_dataset_manifest
from alexnet_jax.data.preparing.dataset_spec import DatasetSpec
from alexnet_jax.data.preparing.estimate import estimate_preparation
from alexnet_jax.data.preparing.shards import SHARD, Progress, Shards
from alexnet_jax.data.preparing.workers import count_cores
from alexnet_jax.data.raw import RAW
from alexnet_jax.data.versions import VERSIONS
from alexnet_jax.errors import InputError
from alexnet_jax.files import hold_lock

MANY = 8192  # images, whose disk space is worth an estimate beforehand
NAMED_UNUSABLE = 10  # how many files or classes an error names before it only counts


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A dataset that was written."""

    name: str
    directory: pathlib.Path  # the version folder
    classes: tuple[str, ...]  # in label order
    splits: dict[str, int]  # images of each
    megabytes: dict[str, float]  # of each split's shards, 10**6 bytes
    skipped: tuple[str, ...]  # 'split/class/file: reason' of every image left out
    notes: tuple[str, ...]  # sentences that the user should read, one for each image left out among them
    fingerprint: str  # as `Dataset.fingerprint`
    seconds: float  # wall time

    def format_text(self) -> str:
        """Formats a few lines for people."""
        speed = sum(self.splits.values()) / self.seconds
        lines = [f'{"split":12}{"images":>10}{"MB":>10}']
        lines += [f'{split:12}{count:10,}{self.megabytes[split]:10.1f}' for split, count in self.splits.items()]
        lines.append(f'{len(self.classes)} classes, {self.seconds:.1f} s, {speed:.0f} images/s: {self.directory}')
        return '\n'.join(lines)

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
    """Writes DATA_DIR/NAME/VERSION, going on from what a killed run of the same spec has left.

    With `skip_unusable` leaves unusable files out instead of failing after all were looked at; with `overwrite`
    replaces an existing dataset. `workers` is the number of processes, None: one a core. Calls `progress` as images are
    finished.

    Raises:
      InputError: it exists already, data_dir cannot be written or is full, unusable images, nothing left of a class.
    """
    start = time.monotonic()
    check_name(spec.name, data_dir=data_dir, overwrite=overwrite)
    directory = pathlib.Path(data_dir) / spec.name / spec.version
    with _open_hidden_folder(pathlib.Path(data_dir), spec.name) as hidden:
        shards = Shards(spec, hidden)
        if (remaining := spec.example_count - shards.finished) > MANY:
            estimate_preparation(spec, data_dir=data_dir, remaining=remaining)
        try:
            shards.write(workers=workers or count_cores(), progress=progress)
            skipped = _check_usable(spec, shards, skip=skip_unusable)
            duplicates = shards.list_duplicates()
            data = shards.assemble()
            fingerprint = _write_statistics(data, spec, shards)
        except BaseException as error:
            if shards.finished < SHARD:  # nothing that is worth keeping
                shutil.rmtree(hidden)
            # ArrayRecord's writer has no error of its own for it.
            if isinstance(error, OSError | RuntimeError | InputError) and os.strerror(errno.ENOSPC) in str(error):
                raise InputError(
                    f'the disk of {data_dir} is full; the same command goes on when there is space'
                ) from error
            raise
        directory.parent.mkdir(exist_ok=True)
        for version in VERSIONS:
            if (old := directory.parent / version).exists():
                old.rename(hidden / f'old_{version}')
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
        notes=(*duplicates, *spec.notes, *(f'skipped {reason}' for reason in skipped)),
        fingerprint=fingerprint,
        seconds=time.monotonic() - start,
    )


def _check_usable(spec: DatasetSpec, shards: Shards, *, skip: bool) -> tuple[str, ...]:
    """Returns what was left out; `InputError` if that is not allowed, or nothing is left of a split or class."""
    states = shards.splits.items()
    unusable = [f'{spec.show_key(split, key)}: {reason}' for split, state in states for key, reason in state.unusable]
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


def check_name(name: str, *, data_dir: str | os.PathLike[str], overwrite: bool) -> None:
    """Raises `InputError` if dataset `name` exists, of any version, and may not be replaced, or for a bad name."""
    if not re.fullmatch(r'[a-z][a-z0-9_]*', name):
        raise InputError(f'--name={name!r} must be lower-case letters, digits and underscores, a letter first')
    parent = pathlib.Path(data_dir) / name
    try:
        present = [parent / version for version in VERSIONS if (parent / version).exists()]
        if present and not overwrite:
            raise InputError(f'{present[0]} exists already; pass --overwrite to replace it')
        lock, hidden = _get_hidden_paths(pathlib.Path(data_dir), name)
        for path in (parent, *present, lock, hidden):
            if path.exists() and not _may_replace(path, within=path.parent if path != parent else None):
                raise InputError(
                    f'{path} belongs to {_get_owner(path)}, and you may not replace it: choose another --name or '
                    '--data_dir, or ask its owner to remove it'
                )
    except PermissionError as error:
        raise InputError(f'{parent} cannot be looked at: {error.strerror}; choose another --data_dir') from error


def _may_replace(path: pathlib.Path, *, within: pathlib.Path | None) -> bool:
    """Tells whether this user may write into `path`, and move it out of the folder `within`."""
    mode = os.W_OK | (os.X_OK if path.is_dir() else 0)
    may = os.access(path, mode, effective_ids=True)
    if within is not None and within.stat().st_mode & stat.S_ISVTX:  # as /tmp: each may move only what is theirs
        may = may and os.geteuid() in (0, path.stat().st_uid, within.stat().st_uid)
    return may


def _get_owner(path: pathlib.Path) -> str:
    try:
        return path.owner()
    except KeyError:  # without a name here, as in a container
        return f'user {path.stat().st_uid}'


def _get_hidden_paths(data_dir: pathlib.Path, name: str) -> tuple[pathlib.Path, pathlib.Path]:
    """Returns the lock of one process, and the folder of what is not finished."""
    return data_dir / f'.{name}.lock', data_dir / f'.{name}.partial'


@contextlib.contextmanager
def _open_hidden_folder(data_dir: pathlib.Path, name: str) -> Iterator[pathlib.Path]:
    """Gives DATA_DIR/.NAME.partial, perhaps with what a killed run left there, to one process at a time."""
    lock, hidden = _get_hidden_paths(data_dir, name)
    with hold_lock(data_dir, lock.name, option='--data_dir', busy=f'is preparing {name}', patience=-1):
        try:
            yield hidden
        finally:
            lock.unlink()


def _write_statistics(data: pathlib.Path, spec: DatasetSpec, shards: Shards) -> str:
    """Adds statistics.npz and manifest.json; returns the fingerprint."""
    if spec.rewritten_from is not None:
        content = pathlib.Path(spec.rewritten_from[1]).read_bytes()
    else:
        statistics, archive = shards.statistics, io.BytesIO()
        np.savez(
            archive,
            mean_image=statistics.mean_image(),
            rgb_covariance=statistics.rgb_covariance(),
            image_count=statistics.image_count,
            pixel_count=statistics.pixel_count,
            class_counts=statistics.class_counts,
        )
        content = archive.getvalue()
    (data / STATISTICS_FILE).write_bytes(content)
    stored: dict[str, Any] = {'statistics_of': spec.statistics_split, 'preprocessing': spec.preprocessing}
    stored['hashes'] = shards.get_hashes()
    if spec.originals is not None:
        directory, names = spec.originals
        splits = {}
        for split, state in shards.splits.items():
            excluded = sorted(int(key) for key, _ in state.unusable)
            splits[split] = {'name': names[split], 'records': state.seen, 'excluded': excluded}
        stored['originals'] = {'directory': directory, 'splits': splits}
    if spec.encoding == RAW:
        counts = {split: [records for records, _, _ in state.shards] for split, state in shards.splits.items()}
        source = {} if spec.rewritten_from is None else {'rewritten_from': spec.rewritten_from[0]}
        stored['raw'] = {'splits': counts} | source
    return write_dataset_manifest(data, **stored)
