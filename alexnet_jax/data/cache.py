"""Keeps the records of a dataset that fits in memory, so that each is decoded once (`--config.cache=memory`)."""

import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import psutil

from alexnet_jax.data.decode import decode_indexed, get_crop_decoder
from alexnet_jax.errors import InputError

_CGROUPS, _OWN_GROUPS = pathlib.Path('/sys/fs/cgroup'), pathlib.Path('/proc/self/cgroup')
# Of version 2 and of version 1: limit, use, and what memory.stat calls the pages of files, given up when asked.
_GROUP_FILES = {
    '': ('memory.max', 'memory.current', 'inactive_file'),
    'memory': ('memory.limit_in_bytes', 'memory.usage_in_bytes', 'total_inactive_file'),
}


class CachedSource:
    """Reads the records of `source`, a `dataset.DataSource`, by index; each is decoded when it is first read.

    Any number of threads may read: two that decode the same record write the same bytes. A pickled copy begins anew.

    Attributes:
      labels: int32 (n,), of the records that were read; 0 of the others.
    """

    def __init__(self, source: Any, *, record_size: int) -> None:
        """Takes memory for all records of `record_size` x `record_size`, of which nothing is used before it is read."""
        self._source, self._record_size, self._decode = source, record_size, get_crop_decoder(source)
        self.photos, self.preprocessing = False, source.preprocessing
        self._pixels = np.empty((len(source), record_size, record_size, 3), np.uint8)
        self._decoded = np.zeros(len(source), bool)
        self.labels = np.zeros(len(source), np.int32)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self._source, self._record_size)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Reads a whole record, uint8 (record_size, record_size, 3) RGB, and its label."""
        pixels = np.empty(self._pixels.shape[1:], np.uint8)
        self.read_crop(index, pixels)
        return pixels, int(self.labels[index])

    def prefetch(self, records: Sequence[int]) -> None:
        """Does nothing: the records are here, or to be decoded."""

    def read_crop(self, index: int, out: np.ndarray, *, top: int = 0, left: int = 0) -> None:
        """Fills `out`, uint8 (side, side, 3), with the part of a record that begins at (top, left).

        Raises:
          InputError: the record is damaged; says which.
        """
        if not self._decoded[index]:
            data, self.labels[index] = self._source[index]
            decode_indexed(self._decode, data, self._pixels[index], record=index, record_size=self._record_size)
            self._decoded[index] = True
        side = len(out)
        out[...] = self._pixels[index, top : top + side, left : left + side]


def _reopen(source: Any, record_size: int) -> CachedSource:
    return CachedSource(source, record_size=record_size)


def check_memory(records: int, *, record_size: int, processes: int = 1) -> None:
    """Checks that so many decoded records fit into what memory is free now; `InputError` with the numbers if not.

    `processes` on this machine keep them, each all of them.
    """
    size, free = records * record_size**2 * 3, read_free_memory()
    if processes * size > free:
        each = f', for each of {processes} processes on this machine' if processes > 1 else ''
        raise InputError(
            f'config.cache=memory would keep {records:,} records of {record_size}x{record_size} in '
            f'{size / 1e9:.1f} GB{each}, and {free / 1e9:.1f} GB of memory are free: leave it none; '
            'alexnet prepare --from=NAME --encoding=raw makes records that need no decoding'
        )


def read_free_memory() -> int:
    """Returns how many bytes this process may still take: what the machine has free, within its groups' limits."""
    free = psutil.virtual_memory().available
    for folder, (limit_file, used_file, pages_key) in _iter_groups():
        try:
            limit, used, numbers = ((folder / name).read_text() for name in (limit_file, used_file, 'memory.stat'))
        except OSError:  # the topmost has no limit, and a container's name outside is no folder within
            continue
        if limit.strip() != 'max':
            pages = int(dict(line.split() for line in numbers.splitlines())[pages_key])
            free = min(free, int(limit) - int(used) + pages)
    return max(0, free)


def _iter_groups() -> Iterator[tuple[pathlib.Path, tuple[str, str, str]]]:
    """Iterates over the folders of this process's memory groups, a container's or a batch job's, and of those above."""
    try:
        lines = _OWN_GROUPS.read_text().splitlines()
    except OSError:  # another system
        return
    for line in lines:
        _, controllers, path = line.split(':', 2)  # of version 2 there are no controllers in it
        if controllers in ('', 'memory'):
            root = _CGROUPS / controllers
            group = root / path.lstrip('/')
            for folder in (group, *group.parents):
                if folder.is_relative_to(root):
                    yield folder, _GROUP_FILES[controllers]
