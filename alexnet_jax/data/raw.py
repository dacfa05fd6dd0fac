"""Reads raw records: uint8 pixels in plain .npy shards, of which a crop is read without decoding anything.

A shard is what `numpy.save` writes of an array (n, side, side, 3); the labels of a split are one array (n,), the names
of the classes lines of a text. On a disk of this machine crops are copied out of a mapping, of which the records of a
batch were asked for before; on a network's, where a mapping may end the process with a bus error, rows are read by
`preadv` into a buffer, which costs a copy more and ends in an error (docs/data.md has the figures).
"""

import bisect
import errno
import io
import itertools
import mmap
import os
import pathlib
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import psutil

from alexnet_jax.data.preprocessing import PAPER
from alexnet_jax.errors import InputError

JPEG, RAW = 'jpeg', 'raw'  # how records are encoded
CLASSES_FILE = 'classes.txt'
HEADER = 128  # bytes before the pixels
# File systems of this machine's own disks. Of what is not known here, nothing is mapped.
LOCAL = frozenset(('apfs', 'btrfs', 'ext2', 'ext3', 'ext4', 'f2fs', 'hfs', 'overlay', 'tmpfs', 'ufs', 'xfs', 'zfs'))
_scratch = threading.local()  # a record's pixels


def make_header(records: int, *, record_size: int) -> bytes:
    """Makes a shard's first bytes, NPY format 1.0: those of `numpy.save`, and the same whatever its version."""
    shape = f'({records}, {record_size}, {record_size}, 3)'
    fields = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}"
    return b'\x93NUMPY\x01\x00' + (HEADER - 10).to_bytes(2, 'little') + fields.encode().ljust(HEADER - 11) + b'\n'


def is_local(path: pathlib.Path) -> bool:
    """Tells whether a file is on a disk of this machine, by the type of its file system."""
    mounts = {mount.mountpoint: mount.fstype for mount in psutil.disk_partitions(all=True)}
    real = path.resolve()
    return next((mounts[name] for name in map(str, (real, *real.parents)) if name in mounts), '') in LOCAL


def view_pixels(record: bytes, *, record_size: int) -> np.ndarray:
    """Returns a record's bytes as uint8 (record_size, record_size, 3)."""
    return np.frombuffer(record, np.uint8).reshape(record_size, record_size, 3)


def get_shard_name(split: str, index: int, count: int) -> str:
    """Returns the file name of a split's shard."""
    return f'{split}-{index:05d}-of-{count:05d}.npy'


def get_labels_name(split: str) -> str:
    """Returns the file name of a split's labels."""
    return f'{split}_labels.npy'


def write_classes(directory: pathlib.Path, classes: Sequence[str]) -> None:
    """Writes the names of the classes, in label order, a line each."""
    (directory / CLASSES_FILE).write_bytes(''.join(f'{name}\n' for name in classes).encode())


def read_classes(directory: pathlib.Path, *, remedy: str) -> tuple[str, ...]:
    """Reads what `write_classes` wrote."""
    try:
        return tuple((directory / CLASSES_FILE).read_bytes().decode().split('\n')[:-1])
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f'{directory / CLASSES_FILE} does not hold the names of the classes; {remedy}') from error


def list_splits(manifest: Mapping[str, Any], *, record_size: int, remedy: str) -> dict[str, Any]:
    """Lists a manifest's splits: of each the records, and in each shard; `InputError` if the files are not of these."""
    try:
        splits, files = {split: list(counts) for split, counts in manifest['raw']['splits'].items()}, manifest['files']
        for split, counts in splits.items():
            for index, count in enumerate(counts):
                size = files[get_shard_name(split, index, len(counts))]['bytes']
                if type(count) is not int or count < 1 or size != HEADER + count * record_size**2 * 3:
                    raise ValueError(split)
            if get_labels_name(split) not in files or CLASSES_FILE not in files:
                raise ValueError(split)
        if type(manifest['raw'].get('rewritten_from', '')) is not str:
            raise ValueError('rewritten_from')
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f'the manifest is not of raw records of {record_size}x{record_size}; {remedy}') from error
    return {split: {'records': sum(counts), 'excluded': (), 'shards': counts} for split, counts in splits.items()}


def write_labels(path: pathlib.Path, labels: np.ndarray) -> None:
    """Writes int32 (n,) labels."""
    content = io.BytesIO()
    np.save(content, labels)
    path.write_bytes(content.getvalue())


def read_labels(path: pathlib.Path, *, records: int, class_count: int, remedy: str) -> np.ndarray:
    """Reads int32 (records,) labels; `InputError` where they are no such, or one is not of a class."""
    try:
        labels = np.load(path, allow_pickle=False)
        if labels.shape != (records,) or labels.dtype != np.int32:
            raise ValueError(f'it has {labels.shape} of {labels.dtype}')
    except (OSError, ValueError, EOFError, AttributeError) as error:  # the last: an archive of arrays
        raise InputError(f'{path} does not hold {records:,} labels; {remedy}') from error
    if outside := labels[(labels < 0) | (labels >= class_count)].tolist():
        raise InputError(f'{path}: label {outside[0]} is outside the {class_count} classes; {remedy}')
    return labels


class RawSource:
    """Reads the records of one split by index: `read_crop`, `labels`; `source[i] -> (pixels, label)` is a whole one.

    Any number of threads may read; a pickled copy opens its own files.
    """

    photos = False  # these are squares

    def __init__(
        self,
        name: str,
        split: str,
        *,
        shards: Sequence[tuple[pathlib.Path, int]],
        labels: np.ndarray,
        record_size: int,
        preprocessing: str = PAPER,
        remedy: str = 'prepare it again with --overwrite',
    ) -> None:
        """Opens the shards, each with the number of its records, and checks that they are what they should be.

        Args:
          name: of the dataset, for messages like `split` and `remedy`, which says what to do about a damaged file.
          split: which the records are of.
          shards: files in order, and how many records each has.
          labels: int32 (n,), of all of them, each that of a class.
          record_size: side of the records in pixels.
          preprocessing: what made them squares.
          remedy: ends the message about a damaged file.

        Raises:
          InputError: a shard is missing, cut, grown, or of another shape.
        """
        self._args: dict[str, Any] = {'shards': tuple(shards), 'labels': labels, 'record_size': record_size}
        self._record_bytes = 3 * record_size**2
        self._args |= {'preprocessing': preprocessing, 'remedy': remedy}
        self._name, self._split, self._remedy = name, split, remedy
        self.labels, self.record_size, self.preprocessing = labels, record_size, preprocessing
        self._paths = [path for path, _ in shards]
        self._starts = [0, *itertools.accumulate(count for _, count in shards)]  # of each shard, and the end
        if len(labels) != self._starts[-1]:
            raise InputError(f'{name} has {self._starts[-1]} records and {len(labels)} labels in {split}; {remedy}')
        self._counts = [count for _, count in shards]
        self._files: list[int] = []
        weakref.finalize(self, _close, self._files)
        for path, count in shards:
            self._files.append(self._open(path, count))
        self._pixels = [self._map(shard) if is_local(path) else None for shard, path in enumerate(self._paths)]

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self._name, self._split, self._args)

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Reads a whole record, uint8 (record_size, record_size, 3) RGB, and its label."""
        pixels = np.empty((self.record_size, self.record_size, 3), np.uint8)
        self.prefetch([index])
        self.read_crop(index, pixels)
        return pixels, int(self.labels[index])

    def read_crop(self, index: int, out: np.ndarray, *, top: int = 0, left: int = 0) -> None:
        """Fills `out`, uint8 (side, side, 3) and contiguous, with the part of a record that begins at (top, left).

        Raises:
          IndexError: there is no such record.
          InputError: the file ends within it, or the disk or the network does not give it.
        """
        size, side = self.record_size, len(out)
        if not 0 <= top <= size - side or not 0 <= left <= size - side:
            raise ValueError(f'records of {size}x{size} have no crop of {side} at ({top}, {left})')
        shard, offset = self._locate(index)
        if (pixels := self._pixels[shard]) is not None:
            out[...] = pixels[index - self._starts[shard], top : top + side, left : left + side]
            return
        offset += top * 3 * size
        if side == size:
            self._read(shard, out, offset, index=index)
            return
        if len(getattr(_scratch, 'pixels', ())) != size:
            _scratch.pixels = np.empty((size, size, 3), np.uint8)
        rows = _scratch.pixels[:side]
        self._read(shard, rows, offset, index=index)
        out[...] = rows[:, left : left + side]

    def prefetch(self, records: Sequence[int]) -> None:
        """Asks the system for records that will be wanted next, all at once, and checks that their shards are whole.

        Raises:
          IndexError: there is no such record.
          InputError: a shard was cut since it was opened: what is mapped of it would end the process; or is gone.
        """
        located = [self._locate(index) for index in records]
        for shard, index in {shard: index for index, (shard, _) in zip(records, located, strict=True)}.items():
            try:
                size = os.fstat(self._files[shard]).st_size
            except OSError as error:  # such as NFS's "Stale file handle", where it was replaced on the server
                raise self._error(shard, index, f'cannot be read: {error.strerror}') from error
            if size < HEADER + self._counts[shard] * self._record_bytes:
                raise self._error(shard, index, 'has become shorter')
        if hasattr(os, 'posix_fadvise'):
            for shard, offset in located:
                os.posix_fadvise(self._files[shard], offset, self._record_bytes, os.POSIX_FADV_WILLNEED)

    def _locate(self, index: int) -> tuple[int, int]:
        """Returns a record's shard and its first byte in it; `IndexError` if there is no such record."""
        if not 0 <= index < len(self):  # also what ends a `for` loop
            raise IndexError(f'{self._name} {self._split} has {len(self)} records, asked for {index}')
        shard = bisect.bisect_right(self._starts, index) - 1
        return shard, HEADER + (index - self._starts[shard]) * self._record_bytes

    def _map(self, shard: int) -> np.ndarray:
        """Maps a shard's pixels, uint8 (n, side, side, 3)."""
        side = self.record_size
        try:
            mapped = mmap.mmap(self._files[shard], 0, prot=mmap.PROT_READ)
        except OSError as error:
            raise self._refuse(self._paths[shard], 'mapped', error) from error
        return np.frombuffer(mapped, np.uint8, offset=HEADER).reshape(-1, side, side, 3)

    def _read(self, shard: int, out: np.ndarray, offset: int, *, index: int) -> None:
        """Reads `out` whole."""
        rest, file = out.data.cast('B'), self._files[shard]
        try:
            while rest and (read := os.preadv(file, [rest], offset)):  # once, but for some network file systems
                rest, offset = rest[read:], offset + read
        except OSError as error:
            raise self._error(shard, index, f'cannot be read: {error.strerror}') from error
        if rest:
            raise self._error(shard, index, 'ends within it')

    def _error(self, shard: int, index: int, reason: str) -> InputError:
        record = f'dataset {self._name}, split {self._split}, record {index}'
        return InputError(f'{record}: {self._paths[shard]} {reason}; {self._remedy}')

    def _open(self, path: pathlib.Path, count: int) -> int:
        """Opens a shard; `InputError` if it is not one of `count` records."""
        header = make_header(count, record_size=self.record_size)
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise self._refuse(path, 'opened', error) from error
        try:
            size, found = os.fstat(file).st_size, os.pread(file, len(header), 0)
        except OSError as error:
            os.close(file)
            raise self._refuse(path, 'read', error) from error
        wanted = len(header) + count * self._record_bytes
        if size != wanted or found != header:
            os.close(file)
            what = f'has {size:,} bytes, not {wanted:,}' if size != wanted else 'does not begin as it should'
            raise InputError(
                f'{path} {what}: {count:,} records of {self.record_size}x{self.record_size}; {self._remedy}'
            )
        return file

    def _refuse(self, path: pathlib.Path, done: str, error: OSError) -> InputError:
        """Makes the error of a shard that cannot be so `done`, for which it need not be to blame."""
        few = error.errno in (errno.EMFILE, errno.ENFILE)
        remedy = 'allow more open files: ulimit -n 4096' if few else self._remedy
        return InputError(f'{path} cannot be {done}: {error.strerror}; {remedy}')


def _reopen(name: str, split: str, args: dict[str, Any]) -> RawSource:
    return RawSource(name, split, **args)


def _close(files: list[int]) -> None:
    for file in files:
        os.close(file)
