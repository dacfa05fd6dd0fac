"""Locks between processes, also of several hosts: a file in the folder that one of them holds."""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import pathlib
import socket
import time
from collections.abc import Iterator
from typing import IO

from alexnet_jax import InputError
from alexnet_jax.training.logbook import to_stderr


@contextlib.contextmanager
def held(folder: pathlib.Path, name: str, *, option: str, busy: str, patience: float) -> Iterator[None]:
    """Holds FOLDER/NAME; waits for another process that does, and says so.

    The lock is the kernel's: it goes with its process, however that ends. Storage that has no locks is used without.

    Args:
      folder: is made where it is missing.
      name: of the file, which stays there and says who holds it, or did last.
      option: that `folder` comes from.
      busy: what the other process does in `folder`, for the person who waits.
      patience: seconds to wait; `math.inf`: until it ends.

    Raises:
      InputError: the folder cannot be written, or another process still holds it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / name).open('a+')
    except OSError as error:
        raise InputError(f'cannot write to {folder}: {error.strerror}; choose another {option}') from error
    with file:
        until, said = time.monotonic() + patience, False
        while not _locked(file):
            file.seek(0)
            other = f'another process ({file.read() or "unknown"}) {busy} in {folder}'
            if time.monotonic() > until:
                raise InputError(
                    f'{other}: stop it, or choose another {option}; if its host is gone, delete {folder / name}'
                )
            if not said:
                limit = '' if math.isinf(patience) else f', up to {patience:.0f} s'
                to_stderr(f'{other}: waiting for its end{limit}')
            said = True
            time.sleep(0.1)
        with contextlib.suppress(OSError):  # a full disk: only the name would be missing
            os.ftruncate(file.fileno(), 0)
            os.write(file.fileno(), f'{socket.gethostname()}, pid {os.getpid()}'.encode())
        yield


def _locked(file: IO[str]) -> bool:
    """Takes the lock of `file`; False: another holds it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # no locks here
        return True
    return True
