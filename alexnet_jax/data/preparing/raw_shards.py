"""Writes a shard of raw records: a .npy file whose head is complete when its last record is known."""

import os
import pathlib
import weakref
from typing import BinaryIO

from alexnet_jax.data.raw import make_header


class RawShardWriter:
    """Writes a shard under another name until it is finished; no file where there is no record."""

    def __init__(self, path: pathlib.Path, *, record_size: int) -> None:
        self._path, self._unfinished, self._record_size = path, path.with_suffix('.unfinished'), record_size
        self._file: BinaryIO | None = None
        self._records = self._bytes = 0

    def write(self, record: bytes, label: int) -> None:
        """Adds a record; the labels of a split are kept together, elsewhere."""
        if self._file is None:
            self._file = self._unfinished.open('wb', buffering=0)
            weakref.finalize(self, self._file.close)
            self._write(make_header(0, record_size=self._record_size))
        self._write(record)
        self._records += 1
        self._bytes += len(record)

    def _write(self, content: bytes) -> None:
        assert self._file is not None
        rest = memoryview(content)
        while rest:  # once, but on a disk that fills
            rest = rest[self._file.write(rest) :]

    def close(self) -> tuple[int, int, int] | None:
        """Moves the file to its path; returns (records, their bytes, the file's), or None where there is no file."""
        if self._file is None:
            return None
        self._file.seek(0)
        self._write(make_header(self._records, record_size=self._record_size))
        os.fsync(self._file.fileno())  # it would now survive a power cut
        self._file.close()
        self._unfinished.replace(self._path)
        return self._records, self._bytes, self._path.stat().st_size
