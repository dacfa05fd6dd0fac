"""Reads the tensors of a PyTorch file (.pth, .pt, .ckpt), without PyTorch and without running anything of the file.

Format: torch/serialization.py. `_save`: a zip archive, uncompressed, of NAME/data.pkl and one NAME/data/KEY for each
storage. `_legacy_save`, before PyTorch 1.6: pickles of a number, a version, facts of the system, the object and the
list of its storages, then of each the number of elements, int64, and its bytes.
"""

import abc
import io
import pathlib
import struct
import zipfile
import zlib
from typing import Any

import numpy as np

from alexnet_jax.console import info
from alexnet_jax.errors import InputError
from alexnet_jax.files import map_file
from alexnet_jax.weights.torch_pickle import MAX_PROGRAM, RefusedError, Storage, Tensor, Unread, unpickle

MAX_DIRECTORY = 2**20  # bytes of the archive's list of files
MAX_DEPTH = 5  # of dictionaries in one another, down to the state dict
LEGACY = b'\x8a\x0a' + 0x1950A86A20F9469CFC6C.to_bytes(10, 'little') + b'.'  # the pickle of the number, after PROTO
_COPIES = ('ema', 'averag', 'swa', 'teacher', 'best', 'optim', 'momentum')  # in names of what stands beside the network
_AS_SAFETENSORS = 'Save the state dict as safetensors: safetensors.torch.save_file(model.state_dict(), FILE)'


def read_torch(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a state dict by name, views of the file; bfloat16 as float32.

    The state dict is the file's, or the only dictionary of tensors in it; of several that under 'state_dict' or
    'model', or else the one that is no copy, such as an average over steps. Which one is taken of several, is printed.

    Raises:
      InputError: the file is damaged, or holds no state dict, or several.
    """
    try:
        archive = _Archive(path) if is_zip(map_file(path)) else _LegacyFile(path)
        found = _find_state_dict(archive.values, path)
        for name, value in found.items():
            if isinstance(value, Unread):
                raise RefusedError(f'{name[:60]} is a {value.name}, which is not read')
        return {name: archive.get_array(value) for name, value in found.items()}
    except (RefusedError, zipfile.BadZipFile, NotImplementedError, EOFError, OSError) as error:
        text = ' '.join(str(error).split())[:200]
        raise InputError(f'{path} is not read: {text}. {getattr(error, "remedy", "") or _AS_SAFETENSORS}') from error


def is_zip(content: memoryview) -> bool:
    """Tells whether a file begins like a zip archive."""
    return bytes(content[:4]) == b'PK\x03\x04'


def is_legacy(content: memoryview) -> bool:
    """Tells whether a file begins as `_legacy_save` wrote it."""
    return content[0] == 0x80 and LEGACY in bytes(content[:32])  # from protocol 4 on a frame begins before it


def list_members(path: pathlib.Path) -> list[str]:
    """Lists the files of a zip archive; none of one that is damaged, of which `read_torch` says what it is."""
    try:
        with _DirectoryFile(path) as file, zipfile.ZipFile(file) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, OSError, EOFError, ValueError):
        return []


def _find_state_dict(values: Any, path: pathlib.Path) -> dict[str, Any]:
    """Finds the dictionary of tensors; of its items those that are named like arrays of a layer, or are tensors."""
    found: dict[tuple[Any, ...], dict[Any, Any]] = {}  # by the keys that lead there
    seen: set[int] = set()
    level: list[tuple[tuple[Any, ...], Any]] = [((), values)]
    for _ in range(MAX_DEPTH):
        below = []
        for where, value in level:
            if id(value) in seen or type(value) not in (dict, list, tuple):
                continue
            seen.add(id(value))
            if type(value) is dict and _is_state_dict(value):
                found[where] = value
            items = value.items() if type(value) is dict else enumerate(value)
            below += [((*where, key), part) for key, part in items if type(part) in (dict, list, tuple)]
        level = below
    if not found and type(values) is dict and values and all(isinstance(part, Tensor) for part in values.values()):
        found[()] = values
    if not found:
        raise RefusedError(*_describe(values, path))
    # Where there are tensors, objects of other libraries under such names are no choice.
    found = {where: part for where, part in found.items() if any(isinstance(x, Tensor) for x in part.values())} or found
    originals = [where for where in found if not any(copy in _join(where).lower() for copy in _COPIES)]
    named = [where for where in ((), ('state_dict',), ('model',)) if where in originals]
    chosen = [*named, *originals, *found][0]
    if not named and len(originals) != 1 and len(found) > 1:
        keys = ''.join(f'[{key!r}]' for key in chosen)
        raise RefusedError(
            f'it holds several state dicts, {", ".join(map(_join, found))[:80]}',
            f'Keep the one that you want: torch.save(torch.load({str(path)!r}, weights_only=False){keys[:80]}, FILE)',
        )
    if len(found) > 1:
        others = ', '.join(_join(where) for where in found if where != chosen)
        info(f'{path}: its {_join(chosen)!r} is read, and not {others[:120]}')
    return {
        name: value
        for name, value in found[chosen].items()
        if type(name) is str
        and (isinstance(value, Tensor) or (isinstance(value, Unread) and name.endswith(('.weight', '.bias'))))
    }


def _join(where: tuple[Any, ...]) -> str:
    return '.'.join(map(str, where))[:80] or 'tensors'


def _is_state_dict(values: dict[Any, Any]) -> bool:
    names = [name for name, value in values.items() if type(name) is str and isinstance(value, Tensor | Unread)]
    return any(name.endswith('.weight') for name in names)


def _describe(values: Any, path: pathlib.Path) -> tuple[str, str]:
    """Describes what a file without a state dict holds, and what to do."""
    load, key = f'torch.load({str(path)!r}, weights_only=False)', ''
    if type(values) is dict:
        objects = {name: value for name, value in values.items() if isinstance(value, Unread)}
        key = next((name for name in ('model', 'net', 'network') if name in objects), next(iter(objects), ''))
        values = objects.get(key, values)
    if isinstance(values, Unread):
        where = f'[{key!r}]' if key else ''
        return (
            f'it wants {values.name}, and only tensors are read; nothing of it was run',
            f'{_AS_SAFETENSORS}; or where you trust it, torch.save({load}{where}.state_dict(), FILE)',
        )
    return 'it is no dictionary of tensors', ''


class _File(abc.ABC):
    """A file of torch.save: `values`, what its pickle describes, and the storages."""

    values: Any

    @abc.abstractmethod
    def get_content(self, storage: Storage) -> memoryview:
        """Returns a storage's bytes where they lie."""

    def get_array(self, tensor: Tensor) -> np.ndarray:
        """Returns a tensor's numbers."""
        storage, key = tensor.storage, tensor.storage.key[:20]
        content = self.get_content(storage)
        dtype = np.dtype(storage.dtype)
        if len(content) != storage.length * dtype.itemsize:
            raise RefusedError(f'storage {key} has {len(content):,} bytes for {storage.length:,} numbers')
        if len(tensor.size) != len(tensor.stride) or len(tensor.size) > 8:
            raise RefusedError('a tensor has more steps than sizes')
        if min((tensor.offset, *tensor.size, *tensor.stride)) < 0 or 0 in tensor.size:
            raise RefusedError('a tensor is of a negative size, or of none')
        reach = sum((size - 1) * stride for size, stride in zip(tensor.size, tensor.stride, strict=True))
        if tensor.offset + reach >= storage.length:
            raise RefusedError(f'a tensor reaches past storage {key}')
        numbers = np.frombuffer(content, dtype)
        if dtype == np.uint16:
            numbers = (numbers.astype(np.uint32) << 16).view(np.float32)
        steps = tuple(stride * numbers.itemsize for stride in tensor.stride)
        try:
            return np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.size, steps, writeable=False)
        except (ValueError, OverflowError) as error:
            raise RefusedError('a tensor is too large to be true') from error


class _LegacyFile(_File):
    def __init__(self, path: pathlib.Path) -> None:
        content = map_file(path)
        program = io.BytesIO(content[:MAX_PROGRAM])
        storages: dict[str, Storage] = {}
        _, version, system, self.values, keys = (unpickle(program, storages) for _ in range(5))
        if version != 1001 or not isinstance(system, dict) or system.get('little_endian') is not True:
            raise RefusedError('it is not of the one version that there was of its form, or its numbers are big-endian')
        if not isinstance(keys, list) or not all(type(key) is str and key in storages for key in keys):
            raise RefusedError('its list of storages is damaged, or has some of a type that is not read')
        place, self._contents = program.tell(), {}
        for key in keys:
            size = storages[key].length * np.dtype(storages[key].dtype).itemsize
            if int.from_bytes(content[place : place + 8], 'little') != storages[key].length or size < 0:
                raise RefusedError(f'storage {key[:20]} is damaged, or the file is cut short', 'Copy it again')
            self._contents[key] = content[place + 8 : place + 8 + size]
            place += 8 + size
        if place != len(content):
            raise RefusedError(f'it has {len(content):,} bytes, and its storages end at {place:,}', 'Copy it again')

    def get_content(self, storage: Storage) -> memoryview:
        if storage.key not in self._contents:
            raise RefusedError(f'there is no storage {storage.key[:20]} in it')
        return self._contents[storage.key]


class _DirectoryFile(io.FileIO):
    """A file of which nobody reads more at once than a decent archive's list of files takes."""

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(MAX_DIRECTORY + 1 if size is None or size < 0 else min(size, MAX_DIRECTORY + 1))
        if len(data) > MAX_DIRECTORY:
            raise zipfile.BadZipFile('the archive says that its list of files is too long to be true')
        return data


class _Archive(_File):
    def __init__(self, path: pathlib.Path) -> None:
        self._bytes = map_file(path)
        with _DirectoryFile(path) as file, zipfile.ZipFile(file) as archive:
            self._files = {info.filename: info for info in archive.infolist()}
        programs = [name for name in self._files if name.endswith('/data.pkl')]
        if len(programs) != 1:
            raise RefusedError('it is no file of torch.save: there is not one data.pkl in it')
        self._folder = programs[0].removesuffix('data.pkl')
        if f'{self._folder}constants.pkl' in self._files:
            raise RefusedError(
                'it is a TorchScript program',
                f'Save its state dict: torch.save(torch.jit.load({str(path)!r}).state_dict(), FILE)',
            )
        if f'{self._folder}byteorder' in self._files and bytes(self.get_member('byteorder')) != b'little':
            raise RefusedError('its numbers are big-endian')
        program = self.get_member('data.pkl')
        if len(program) > MAX_PROGRAM:
            raise RefusedError(f'a data.pkl of {len(program):,} bytes')
        self.values = unpickle(io.BytesIO(program), {})

    def get_content(self, storage: Storage) -> memoryview:
        return self.get_member(f'data/{storage.key}')

    def get_member(self, name: str) -> memoryview:
        """Returns a file's bytes where they lie, compared with their checksum."""
        info = self._files.get(self._folder + name)
        if info is None:
            raise RefusedError(f'there is no {name[:40]} in it')
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise RefusedError(f'{name[:40]} is compressed or encrypted, which PyTorch never does')
        head = self._bytes[info.header_offset : info.header_offset + 30]  # PKWARE's APPNOTE, 4.3.7
        if len(head) < 30 or bytes(head[:4]) != b'PK\x03\x04':
            raise RefusedError(f'{name[:40]} is not where the archive says')
        start = info.header_offset + 30 + sum(struct.unpack('<HH', head[26:30]))
        content = self._bytes[start : start + info.file_size]
        if len(content) != info.file_size or zlib.crc32(content) != info.CRC:
            raise RefusedError(f'{name[:40]} is damaged: its checksum is another')
        return content
