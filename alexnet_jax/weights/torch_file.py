"""Reads the tensors of a PyTorch file (.pth, .pt), without PyTorch and without running anything of the file.

Format: torch/serialization.py `_save`: a zip archive, uncompressed, of NAME/data.pkl and one NAME/data/KEY for each
storage. data.pkl is a pickle, which is a program: unpickled as it is, it may call whatever it names.
"""

import io
import pathlib
import pickle
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from alexnet_jax.errors import InputError
from alexnet_jax.files import map_file

MAX_PROGRAM = 2**20  # bytes of data.pkl; AlexNet's has two thousand
MAX_DIRECTORY = 2**20  # bytes of the archive's list of files
_DAMAGED = (  # what the unpickler raises
    *(pickle.UnpicklingError, struct.error, EOFError, OverflowError),
    *(ValueError, LookupError, TypeError, AttributeError),
)
_STORAGES = {
    'torch.FloatStorage': '<f4',
    'torch.HalfStorage': '<f2',
    'torch.DoubleStorage': '<f8',
    'torch.BFloat16Storage': '<u2',  # the upper half of a float32
}
_DICT = 'collections.OrderedDict'
_TENSOR = 'torch._utils._rebuild_tensor_v2'
_PARAMETER = 'torch._utils._rebuild_parameter'
GLOBALS = frozenset({_DICT, _TENSOR, _PARAMETER, *_STORAGES})  # all that a file may name
# The instructions that are carried out as they are; SETITEM, SETITEMS and BUILD are checked, all others refused.
OPCODES = b''.join(
    [
        *(pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.MARK, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE),
        *(pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1, pickle.BINFLOAT),
        *(pickle.BINUNICODE, pickle.SHORT_BINUNICODE, pickle.EMPTY_DICT, pickle.EMPTY_LIST, pickle.APPEND),
        *(pickle.APPENDS, pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3),
        *(pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE, pickle.BINGET, pickle.LONG_BINGET),
        *(pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.BINPERSID, pickle.REDUCE),
    ]
)


class _RefusedError(Exception):
    """The file holds something else than tensors; says what."""


class _Storage(NamedTuple):
    """`length` numbers in the archive's data/KEY."""

    key: str
    dtype: str
    length: int


class _Tensor(NamedTuple):
    """A window of a storage: first element, sizes and steps in elements."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Global(NamedTuple):
    """Stands in the place of one of GLOBALS. A tuple, so that no instruction can set an attribute of it."""

    name: str

    def __call__(self, *arguments: Any) -> object:
        """Returns what a call of it describes: an empty dictionary or a tensor."""
        match self.name, arguments:
            case name, () if name == _DICT:
                return {}
            case name, (_Storage() as storage, int(offset), tuple(size), tuple(stride), *_) if name == _TENSOR:
                if all(type(number) is int for number in (*size, *stride)):
                    return _Tensor(storage, offset, size, stride)
            case name, (_Tensor() as tensor, *_) if name == _PARAMETER:
                return tensor
        raise _RefusedError(f'data.pkl calls {self.name} with what it does not take')


class _Loaders(dict[int, Callable[[Any], None]]):
    def __missing__(self, opcode: int) -> Callable[[Any], None]:
        names = {ord(known.code): known.name for known in pickletools.opcodes}
        raise _RefusedError(f'data.pkl holds the instruction {names.get(opcode, opcode)}, which no state dict needs')


class _Unpickler(pickle._Unpickler):
    """Carries out a data.pkl on dictionaries, tuples, lists, numbers, texts and the descriptions above alone.

    This is the standard library's unpickler in Python, because the one in C has no list of instructions to close. With
    every name refused, that one still takes 1.5 GB for nine bytes (a place in the memo) and hashes nested tuples, for
    which each five bytes double the time.
    """

    stack: list[Any]
    pop_mark: Callable[[], list[Any]]

    def find_class(self, module: str, name: str) -> _Global:
        """Looks nothing up: a name is allowed or refused."""
        if f'{module}.{name}' not in GLOBALS:
            shown = ''.join(f'{module}.{name}'.split())[:60]
            raise _RefusedError(f'it wants {shown}, and only tensors are read; nothing of it was run')
        return _Global(f'{module}.{name}')

    def persistent_load(self, pid: Any) -> _Storage:
        """Describes a storage: torch/serialization.py `persistent_id`, (type, key, device, number of elements)."""
        match pid:
            case ('storage', _Global(kind), str(key), str(), int(count)) if kind in _STORAGES:
                return _Storage(key, _STORAGES[kind], count)
        raise _RefusedError('it refers to a storage of a type that is not read: float, half, bfloat16 and double are')

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set_items([key, value])

    def load_setitems(self) -> None:
        self._set_items(self.pop_mark())

    def load_build(self) -> None:
        """Drops the state of an OrderedDict, its attribute _metadata: versions of modules."""
        self._expect(dict, self.stack.pop())
        self._expect(dict, self.stack[-1])

    def _set_items(self, items: list[Any]) -> None:
        target = self._expect(dict, self.stack[-1])
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Of texts and numbers alone: hashing nested tuples can take forever.
            target[key if type(key) is int else self._expect(str, key)] = value

    def _expect(self, kind: type, value: Any) -> Any:
        if type(value) is not kind:
            raise _RefusedError(f'data.pkl holds a {type(value).__name__.lstrip("_")} where a {kind.__name__} belongs')
        return value

    dispatch = _Loaders(
        {opcode: pickle._Unpickler.dispatch[opcode] for opcode in OPCODES}
        | {ord(pickle.SETITEM): load_setitem, ord(pickle.SETITEMS): load_setitems, ord(pickle.BUILD): load_build}
    )


def read_torch(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a state dict by name, float16, 32 or 64 (bfloat16 as float32): views of the file.

    A dictionary with the state dict under 'state_dict' or 'model' is taken too.

    Raises:
      InputError: the file is damaged, or holds anything else.
    """
    try:
        archive = _Archive(path)
        values = _unpickle(archive.get_content('data.pkl'))
        for key in ('state_dict', 'model'):
            if isinstance(values, dict) and isinstance(values.get(key), dict):
                values = values[key]
        if not isinstance(values, dict) or not all(isinstance(value, _Tensor) for value in values.values()):
            raise _RefusedError('it is no dictionary of tensors')
        return {name: archive.get_array(tensor) for name, tensor in values.items()}
    except (_RefusedError, zipfile.BadZipFile, NotImplementedError, EOFError, OSError) as error:
        raise InputError(
            f'{path} is not read: {" ".join(str(error).split())[:200]}. Save the state dict as safetensors: '
            'safetensors.torch.save_file(model.state_dict(), FILE)'
        ) from error


def _unpickle(program: memoryview) -> Any:
    if len(program) > MAX_PROGRAM:
        raise _RefusedError(f'a data.pkl of {len(program):,} bytes')
    try:
        return _Unpickler(io.BytesIO(program)).load()
    except _DAMAGED as error:
        raise _RefusedError(f'data.pkl is damaged: {str(error)[:60] or "it is cut short"}') from error


class _DirectoryFile(io.FileIO):
    """A file of which nobody reads more at once than a decent archive's list of files takes."""

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(MAX_DIRECTORY + 1 if size is None or size < 0 else min(size, MAX_DIRECTORY + 1))
        if len(data) > MAX_DIRECTORY:
            raise zipfile.BadZipFile('the archive says that its list of files is too long to be true')
        return data


class _Archive:
    def __init__(self, path: pathlib.Path) -> None:
        self._bytes = map_file(path)
        with _DirectoryFile(path) as file, zipfile.ZipFile(file) as archive:
            self._files = {info.filename: info for info in archive.infolist()}
        programs = [name for name in self._files if name.endswith('/data.pkl')]
        if len(programs) != 1:
            raise _RefusedError('it is no file of torch.save: there is not one data.pkl in it')
        self._folder = programs[0].removesuffix('data.pkl')
        if f'{self._folder}constants.pkl' in self._files:
            raise _RefusedError('it is a TorchScript program')
        if f'{self._folder}byteorder' in self._files and bytes(self.get_content('byteorder')) != b'little':
            raise _RefusedError('its numbers are big-endian')

    def get_array(self, tensor: _Tensor) -> np.ndarray:
        storage, key = tensor.storage, tensor.storage.key[:20]
        content = self.get_content(f'data/{storage.key}')
        dtype = np.dtype(storage.dtype)
        if len(content) != storage.length * dtype.itemsize:
            raise _RefusedError(f'storage {key} has {len(content):,} bytes for {storage.length:,} numbers')
        if len(tensor.size) != len(tensor.stride) or len(tensor.size) > 8:
            raise _RefusedError('a tensor has more steps than sizes')
        if min(tensor.offset, *tensor.size, *tensor.stride) < 0 or 0 in tensor.size:
            raise _RefusedError('a tensor is of a negative size, or of none')
        reach = sum((size - 1) * stride for size, stride in zip(tensor.size, tensor.stride, strict=True))
        if tensor.offset + reach >= storage.length:
            raise _RefusedError(f'a tensor reaches past storage {key}')
        numbers = np.frombuffer(content, dtype)
        if dtype == np.uint16:
            numbers = (numbers.astype(np.uint32) << 16).view(np.float32)
        steps = tuple(stride * numbers.itemsize for stride in tensor.stride)
        try:
            return np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.size, steps, writeable=False)
        except (ValueError, OverflowError) as error:
            raise _RefusedError('a tensor is too large to be true') from error

    def get_content(self, name: str) -> memoryview:
        """Returns a file's bytes where they lie, compared with their checksum."""
        info = self._files.get(self._folder + name)
        if info is None:
            raise _RefusedError(f'there is no {name[:40]} in it')
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise _RefusedError(f'{name[:40]} is compressed or encrypted, which PyTorch never does')
        head = self._bytes[info.header_offset : info.header_offset + 30]  # PKWARE's APPNOTE, 4.3.7
        if len(head) < 30 or bytes(head[:4]) != b'PK\x03\x04':
            raise _RefusedError(f'{name[:40]} is not where the archive says')
        start = info.header_offset + 30 + sum(struct.unpack('<HH', head[26:30]))
        content = self._bytes[start : start + info.file_size]
        if len(content) != info.file_size or zlib.crc32(content) != info.CRC:
            raise _RefusedError(f'{name[:40]} is damaged: its checksum is another')
        return content
