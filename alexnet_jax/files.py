"""Files as a whole: written so that half of one never has its name, mapped, hashed, and locked between processes."""

import contextlib
import csv
import fcntl
import hashlib
import io
import json
import math
import mmap
import os
import pathlib
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any, BinaryIO

from alexnet_jax.console import info
from alexnet_jax.errors import InputError

HALF = '.half'  # ends the names of files that are being written, and of what a killed process leaves of them
# What file managers, archives and file systems put into folders by themselves.
_LITTER = ('.DS_Store', '__MACOSX', 'Thumbs.db', 'desktop.ini', '.directory', 'lost+found', '.snapshot', '@eaDir')
_LITTER_PREFIXES = ('._', '.nfs', '.Trash', '.fseventsd', '.Spotlight-')


def is_litter(name: str) -> bool:
    """Tells whether a file or folder of that name is nobody's work: macOS's .DS_Store, a new disk's lost+found."""
    return name in _LITTER or name.startswith(_LITTER_PREFIXES)


def escape_name(name: str | os.PathLike[str]) -> str:
    r"""Returns a name with its bytes that are not UTF-8 as \xe9: it can be printed and written anywhere."""
    return os.fsencode(name).decode('utf-8', 'backslashreplace')


def check_utf8(path: str | os.PathLike[str], *, option: str) -> None:
    """Raises `InputError` where a path is not UTF-8: ArrayRecord and Orbax take no other."""
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f'{escape_name(path)}: a name that is not UTF-8, which ArrayRecord and Orbax cannot open; '
            f'rename the folder, or choose another {option}'
        ) from error


@contextlib.contextmanager
def replacing(path: pathlib.Path, *, durable: bool = False) -> Iterator[BinaryIO]:
    """Gives a new file that takes `path`'s name once all is written; until then whatever was there stays.

    `durable`: the content survives a power cut once this returns.

    Raises:
      InputError: the file cannot be written.
    """
    half = _get_half(path)
    try:
        if _is_special(path):
            raise InputError(f'{path} is a device or a pipe: name a file')
        with half.open('wb') as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        half.replace(path)
    except OSError as error:
        raise InputError(f'cannot write {path}: {error.strerror or error}') from error
    finally:
        with contextlib.suppress(OSError):
            half.unlink(missing_ok=True)


def check_writable(path: pathlib.Path, *, option: str) -> None:
    """Checks that `replacing` could write `path`, which stays as it is: looked at before the work, not after it.

    Raises:
      InputError: it could not; names `option`, where the path comes from.
    """
    half = _get_half(path)
    try:
        if not path.parent.is_dir():
            raise InputError(f'{option}={path}: there is no folder {path.parent}')
        if path.is_dir():
            raise InputError(f'{option}={path} is a folder: name a file in it')
        if _is_special(path):
            raise InputError(f'{option}={path} is a device or a pipe: name a file')
        half.touch()
        half.unlink()
    except OSError as error:
        raise InputError(f'cannot write {path}: {error.strerror}; choose another {option}') from error


def _is_special(path: pathlib.Path) -> bool:
    return path.exists() and not path.is_file() and not path.is_dir()  # root would put a file in place of /dev/null


def _get_half(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(f'.{path.name}.{os.getpid()}{HALF}')


def write_file(path: pathlib.Path, content: str | bytes, *, durable: bool = False) -> None:
    """Writes a file whole or not at all, text as UTF-8; `InputError` where the disk does not take it."""
    with replacing(path, durable=durable) as file:
        file.write(content.encode(errors='replace') if isinstance(content, str) else content)


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes `value` as JSON, whole or not at all; `InputError` where the disk does not take it."""
    write_file(path, json.dumps(value, indent=2) + '\n')


def format_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Formats rows, at least one, as CSV with a head."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def map_file(path: pathlib.Path) -> memoryview:
    """Maps a file's bytes, which are read from disk only where they are looked at.

    Raises:
      InputError: there is no such file, or it is empty.
    """
    try:
        with path.open('rb') as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:
        raise InputError(f'{path} cannot be read: {getattr(error, "strerror", None) or "it is empty"}') from error


def hash_file(path: pathlib.Path) -> str:
    """Computes the sha256 of a file, in hex."""
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def hash_json(value: Any) -> str:
    """Computes the sha256, in hex, of a value's JSON with sorted keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def try_lock(path: pathlib.Path) -> IO[str] | None:
    """Opens a file to append to and locks it; None where another process holds it.

    The lock is the kernel's: it goes with the last process that has the file open through this call, however that ends,
    and so is passed on with an inherited output. On storage without locks the file is taken as free.
    """
    file = path.open('a+')
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    except OSError:
        pass  # no locks here
    return file


@contextlib.contextmanager
def hold_lock(folder: pathlib.Path, name: str, *, option: str, busy: str, patience: float) -> Iterator[None]:
    """Holds the lock FOLDER/NAME; waits for another process that has it, and says so.

    Args:
      folder: made where it is missing.
      name: of the file, which stays there and says who holds the lock, or did last.
      option: the command-line option that `folder` comes from.
      busy: what the other process does in `folder`, for the person who waits.
      patience: seconds to wait; `math.inf`: until the other process ends.

    Raises:
      InputError: the folder cannot be written, or another process still holds the lock.
    """
    check_utf8(folder, option=option)
    until, said = time.monotonic() + patience, False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while (file := try_lock(folder / name)) is None:
            holder = (folder / name).read_text() or 'unknown'
            other = f'another process ({holder}) {busy} in {folder}'
            if time.monotonic() > until:
                raise InputError(
                    f'{other}: stop it, or choose another {option}; if its host is gone, delete {folder / name}'
                )
            if not said:
                limit = '' if math.isinf(patience) else f', up to {patience:.0f} s'
                info(f'{other}: waiting for its end{limit}')
            said = True
            time.sleep(0.1)
    except OSError as error:
        raise InputError(f'cannot write to {folder}: {error.strerror}; choose another {option}') from error
    with file:
        with contextlib.suppress(OSError):  # a full disk: only the name would be missing
            os.ftruncate(file.fileno(), 0)
            os.write(file.fileno(), f'{socket.gethostname()}, pid {os.getpid()}'.encode())
        yield
