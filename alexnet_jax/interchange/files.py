"""Files as a whole: written so that half a file never has its name, mapped rather than read."""

from __future__ import annotations

import contextlib
import mmap
import os
import pathlib
from collections.abc import Iterator
from typing import BinaryIO

from alexnet_jax import InputError


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[BinaryIO]:
    """A new file that takes `path`'s name once all is written; until then whatever was there stays.

    Raises:
      InputError: it cannot be written.
    """
    half = path.with_name(f'.{path.name}.half')
    try:
        with half.open('wb') as file:
            yield file
        os.replace(half, path)
    except OSError as error:
        raise InputError(f'cannot write {path}: {error.strerror or error}') from error
    finally:
        with contextlib.suppress(OSError):
            half.unlink(missing_ok=True)


def mapped(path: pathlib.Path) -> memoryview:
    """A file's bytes, read from disk only where they are looked at.

    Raises:
      InputError: there is no such file, or it is empty.
    """
    try:
        with path.open('rb') as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:
        raise InputError(f'{path} cannot be read: {getattr(error, "strerror", None) or "it is empty"}') from error
