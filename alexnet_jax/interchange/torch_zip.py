"""Reads the tensors of a PyTorch file (.pth, .pt) without running anything of it.

Format: torch/serialization.py `_save`: a zip archive, uncompressed, of NAME/data.pkl and one NAME/data/KEY for each
storage. data.pkl is a pickle, which is a program: unpickled, it may call whatever it names. Here its instructions are
only listed (pickletools, which runs none), and a few of them carried out on plain values; any other, and any name but
those below, is refused.
"""

from __future__ import annotations

import dataclasses
import io
import pathlib
import pickletools
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from alexnet_jax import InputError
from alexnet_jax.interchange.files import mapped

MAX_PROGRAM = 2**20  # bytes of data.pkl; AlexNet's has two thousand
MAX_INSTRUCTIONS = 100_000
MAX_DIRECTORY = 2**20  # bytes of the archive's list of files

_STORAGES = {
    'torch FloatStorage': '<f4',
    'torch HalfStorage': '<f2',
    'torch DoubleStorage': '<f8',
    'torch BFloat16Storage': '<u2',  # the upper half of a float32
}
_DICT = 'collections OrderedDict'
_TENSOR = 'torch._utils _rebuild_tensor_v2'
_PARAMETER = 'torch._utils _rebuild_parameter'
_NAMES = {_DICT, _TENSOR, _PARAMETER, *_STORAGES}


class _Refused(ValueError):
    """The file holds something else than tensors; says what."""


@dataclasses.dataclass(frozen=True)
class _Name:
    """What a pickle calls or refers to, by name; nothing is ever looked up under it."""

    name: str


@dataclasses.dataclass(frozen=True)
class _Storage:
    """`count` numbers in the archive's data/KEY."""

    key: str
    kind: str
    count: int


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """A window of a storage: first element, sizes and steps in elements."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The tensors of a state dict by name, float16, 32 or 64 (bfloat16 as float32): views of the file.

    A dictionary with the state dict under 'state_dict' or 'model' is taken too.

    Raises:
      InputError: the file is damaged, or holds anything else.
    """
    try:
        archive = _Archive(path)
        values = _carried_out(archive.program())
        for key in ('state_dict', 'model'):
            if isinstance(values, dict) and isinstance(values.get(key), dict):
                values = values[key]
        if not isinstance(values, dict) or not all(isinstance(value, _Tensor) for value in values.values()):
            raise _Refused('it is no dictionary of tensors')
        return {name: archive.tensor(tensor) for name, tensor in values.items()}
    except (_Refused, zipfile.BadZipFile, NotImplementedError, EOFError, OSError) as error:
        raise InputError(
            f'{path} is not read: {" ".join(str(error).split())[:200]}. Save the state dict as safetensors: '
            'safetensors.torch.save_file(model.state_dict(), FILE)'
        ) from error


class _Directory(io.FileIO):
    """A file of which nobody reads more at once than a decent archive's list of files takes."""

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(MAX_DIRECTORY + 1 if size is None or size < 0 else min(size, MAX_DIRECTORY + 1))
        if len(data) > MAX_DIRECTORY:
            raise zipfile.BadZipFile('the archive says that its list of files is too long to be true')
        return data


class _Archive:
    """The archive of a PyTorch file."""

    def __init__(self, path: pathlib.Path) -> None:
        self._bytes = mapped(path)
        with _Directory(path) as file, zipfile.ZipFile(file) as archive:
            self._files = {info.filename: info for info in archive.infolist()}
        programs = [name for name in self._files if name.endswith('/data.pkl')]
        if len(programs) != 1:
            raise _Refused('it is no file of torch.save: there is not one data.pkl in it')
        self._folder = programs[0].removesuffix('data.pkl')
        if f'{self._folder}constants.pkl' in self._files:
            raise _Refused('it is a TorchScript program')
        order = self._folder + 'byteorder'
        if order in self._files and bytes(self._content('byteorder')) != b'little':
            raise _Refused('its numbers are big-endian')

    def program(self) -> bytes:
        """data.pkl."""
        content = self._content('data.pkl')
        if len(content) > MAX_PROGRAM:
            raise _Refused(f'a data.pkl of {len(content):,} bytes')
        return bytes(content)

    def tensor(self, tensor: _Tensor) -> np.ndarray:
        """The numbers of a tensor."""
        storage = tensor.storage
        content = self._content(f'data/{storage.key}')
        dtype = np.dtype(_STORAGES[storage.kind])
        if len(content) != storage.count * dtype.itemsize:
            raise _Refused(f'storage {storage.key[:20]} has {len(content):,} bytes for {storage.count:,} numbers')
        if len(tensor.size) != len(tensor.stride) or len(tensor.size) > 8:
            raise _Refused('a tensor has more steps than sizes')
        reach = sum((size - 1) * stride for size, stride in zip(tensor.size, tensor.stride, strict=True))
        if min(tensor.offset, *tensor.size, *tensor.stride) < 0 or 0 in tensor.size:
            raise _Refused('a tensor is of a negative size, or of none')
        if tensor.offset + reach >= storage.count:
            raise _Refused(f'a tensor reaches past storage {storage.key[:20]}')
        numbers = np.frombuffer(content, dtype)
        if storage.kind == 'torch BFloat16Storage':
            numbers = (numbers.astype(np.uint32) << 16).view(np.float32)
        steps = tuple(stride * numbers.itemsize for stride in tensor.stride)
        try:
            return np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.size, steps, writeable=False)
        except (ValueError, OverflowError) as error:
            raise _Refused('a tensor is too large to be true') from error

    def _content(self, name: str) -> memoryview:
        """A file's bytes where they lie, compared with their checksum."""
        info = self._files.get(self._folder + name)
        if info is None:
            raise _Refused(f'there is no {name[:40]} in it')
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise _Refused(f'{name[:40]} is compressed or encrypted, which PyTorch never does')
        head = self._bytes[info.header_offset : info.header_offset + 30]  # PKWARE's APPNOTE, 4.3.7
        if len(head) < 30 or bytes(head[:4]) != b'PK\x03\x04':
            raise _Refused(f'{name[:40]} is not where the archive says')
        before = int.from_bytes(head[26:28], 'little') + int.from_bytes(head[28:30], 'little')
        start = info.header_offset + 30 + before
        content = self._bytes[start : start + info.file_size]
        if len(content) != info.file_size or zlib.crc32(content) != info.CRC:
            raise _Refused(f'{name[:40]} is damaged: its checksum is another')
        return content


def _instructions(program: bytes) -> Iterator[tuple[str, Any]]:
    """(name, argument) of each, decoded; none is run."""
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(program)):
            if count == MAX_INSTRUCTIONS:
                raise _Refused('a data.pkl of too many instructions')
            yield opcode.name, argument
    except (ValueError, IndexError, OverflowError, UnicodeError, MemoryError) as error:
        if isinstance(error, _Refused):
            raise
        raise _Refused(f'data.pkl is damaged: {str(error)[:60]}') from error


_MARK = object()
_CONSTANTS = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False, 'EMPTY_TUPLE': ()}
_PLAIN = {'BINUNICODE', 'SHORT_BINUNICODE', 'BININT', 'BININT1', 'BININT2', 'LONG1', 'BINFLOAT'}
_TUPLES = {'TUPLE1': 1, 'TUPLE2': 2, 'TUPLE3': 3}


def _carried_out(program: bytes) -> object:
    """What a data.pkl describes, of dictionaries, tuples, lists, numbers, texts and tensors alone."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    try:
        for name, argument in _instructions(program):
            if name in ('PROTO', 'FRAME'):
                continue
            if name == 'STOP':
                return stack.pop()
            if name == 'MARK':
                stack.append(_MARK)
            elif name in _PLAIN:
                stack.append(argument)
            elif name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            elif name in ('EMPTY_DICT', 'EMPTY_LIST'):
                stack.append({} if name == 'EMPTY_DICT' else [])
            elif name in ('BINPUT', 'LONG_BINPUT'):
                memo[argument] = stack[-1]
            elif name == 'MEMOIZE':
                memo[len(memo)] = stack[-1]
            elif name in ('BINGET', 'LONG_BINGET'):
                stack.append(memo[argument])
            elif name in _TUPLES:
                count = _TUPLES[name]
                stack[-count:] = [tuple(stack[-count:])]
            elif name == 'TUPLE':
                stack.append(tuple(_marked(stack)))
            elif name in ('APPEND', 'APPENDS'):
                items = [stack.pop()] if name == 'APPEND' else _marked(stack)
                _of(list, stack[-1]).extend(items)
            elif name in ('SETITEM', 'SETITEMS'):
                items = [stack.pop(-2), stack.pop()] if name == 'SETITEM' else _marked(stack)
                _set(stack[-1], items)
            elif name in ('GLOBAL', 'STACK_GLOBAL'):
                if name == 'STACK_GLOBAL':
                    last, first = _of(str, stack.pop()), _of(str, stack.pop())
                    argument = f'{first} {last}'
                stack.append(_allowed(argument))
            elif name == 'BINPERSID':
                stack.append(_storage(stack.pop()))
            elif name == 'REDUCE':
                arguments = stack.pop()
                stack.append(_called(stack.pop(), arguments))
            elif name == 'BUILD':  # of an OrderedDict: its attribute _metadata, versions of modules
                _of(dict, stack.pop()), _of(dict, stack[-1])
            else:
                raise _Refused(f'data.pkl holds the instruction {name}, which no state dict needs')
    except (IndexError, KeyError) as error:
        raise _Refused('data.pkl is damaged: it takes what it has not put down') from error
    raise _Refused('data.pkl does not end')


def _marked(stack: list[Any]) -> list[Any]:
    """What lies above the last mark, taken off with it."""
    for place in range(len(stack) - 1, -1, -1):
        if stack[place] is _MARK:
            items = stack[place + 1 :]
            del stack[place:]
            return items
    raise IndexError


def _of(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise _Refused(f'data.pkl holds a {type(value).__name__.lstrip("_")} where a {kind.__name__} belongs')
    return value


def _set(target: Any, items: list[Any]) -> None:
    if len(items) % 2:
        raise IndexError
    for key, value in zip(items[::2], items[1::2], strict=True):
        # Of texts and numbers alone: hashing nested tuples can take forever.
        _of(dict, target)[key if type(key) is int else _of(str, key)] = value


def _allowed(name: str) -> _Name:
    if name not in _NAMES:
        shown = ' '.join(name.split()).replace(' ', '.')
        raise _Refused(f'it wants {shown[:60]}, and only tensors are read; nothing of it was run')
    return _Name(name)


def _storage(identity: Any) -> _Storage:
    """torch/serialization.py `persistent_id`: ('storage', its type, key, device, number of elements)."""
    match identity:
        case ('storage', _Name(kind), str(key), str(), int(count)) if kind in _STORAGES:
            return _Storage(key, kind, count)
    raise _Refused('it refers to a storage of a type that is not read: only float, half, bfloat16 and double are')


def _called(function: Any, arguments: Any) -> object:
    match function, arguments:
        case _Name(name), () if name == _DICT:
            return {}
        case _Name(name), (_Storage() as storage, int(offset), tuple(size), tuple(stride), *_) if name == _TENSOR:
            if all(type(number) is int for number in (*size, *stride)):
                return _Tensor(storage, offset, size, stride)
        case _Name(name), (_Tensor() as tensor, *_) if name == _PARAMETER:
            return tensor
    raise _Refused('data.pkl calls what it may with what it may not')
