"""Reads MATLAB files of level 5, `save -v6` and `-v7`, as arrays, texts, lists and dictionaries.

Format: MathWorks, "MAT-File Format", chapter 1. scipy.io.loadmat 1.17 reads the same files, but dies of cells that are
some ten thousand deep in one another (1 MB), and unpacks without a limit.
"""

import math
import zlib
from typing import Any

import numpy as np

from alexnet_jax.weights.proto_messages import MalformedError

MAX_VALUES = 100_000  # in a file; a network of a thousand classes has some three thousand
MAX_DEPTH = 8  # of cells and structs in one another
MAX_UNPACKED = 2**30  # bytes of all variables that are compressed
MAX_RATIO = 64  # of one; weights shrink by less than 3
_HEADER = 128
_DTYPES = {1: 'i1', 2: 'u1', 3: 'i2', 4: 'u2', 5: 'i4', 6: 'u4', 7: 'f4', 9: 'f8', 12: 'i8', 13: 'u8'}  # miINT8 ...
_TEXTS = {1: 'latin1', 2: 'latin1', 4: 'utf-16', 16: 'utf-8', 17: 'utf-16', 18: 'utf-32'}
_MATRIX, _COMPRESSED = 14, 15
_CELL, _STRUCT, _CHAR, _NUMBERS = 1, 2, 4, range(6, 16)  # mxCELL_CLASS ...; 3, 5, 16, 17 are objects, sparse, functions


def is_mat(content: memoryview) -> bool:
    """Tells whether a file begins like a MATLAB file of level 5."""
    return bytes(content[124:128]) in (b'\x00\x01IM', b'\x01\x00MI')


def read_mat(content: memoryview) -> dict[str, Any]:
    """Reads the variables of a MATLAB file by name; arrays are views of it, or of what was compressed in it.

    A numeric array becomes a NumPy array, of the type that the file stores and with as many axes as MATLAB gave it; a
    char array a text, a cell a list in column-major order, a struct a dictionary, a struct array a list of them, and
    whatever else None.

    Raises:
      MalformedError: it is damaged, or holds more than a network does.
    """
    return _Reader('<' if bytes(content[126:128]) == b'IM' else '>').read(content)


class _Reader:
    def __init__(self, order: str) -> None:
        self._order, self._count, self._unpacked = order, 0, 0

    def read(self, content: memoryview) -> dict[str, Any]:
        variables, place = {}, _HEADER
        while place < len(content):
            kind, data, place = self._element(content, place)
            if kind == _COMPRESSED:
                kind, data, _ = self._element(self._unpack(data), 0)
            if kind != _MATRIX:
                raise MalformedError(f'an element of type {kind} where a variable belongs')
            name, value = self._matrix(data, 0)
            variables[name] = value
        return variables

    def _element(self, content: memoryview, place: int) -> tuple[int, memoryview, int]:
        """Returns an element's type, its bytes, and where the next one begins."""
        if place + 8 > len(content):
            raise MalformedError('it is cut short')
        first, size = np.frombuffer(content, f'{self._order}u4', 2, place).tolist()
        if first >> 16:  # a small one: its size and type in four bytes, its content in the next
            kind, size, start, end = first & 0xFFFF, first >> 16, place + 4, place + 8
            if size > 4:
                raise MalformedError('a small element of more than four bytes')
        else:
            kind, start = first, place + 8
            end = start + size + (-size % 8 if kind != _COMPRESSED else 0)
        if start + size > len(content):
            raise MalformedError('it is cut short')
        return kind, content[start : start + size], end

    def _unpack(self, data: memoryview) -> memoryview:
        limit = min(MAX_UNPACKED - self._unpacked, MAX_RATIO * len(data) + 2**20)
        try:
            unpacker = zlib.decompressobj()
            unpacked = unpacker.decompress(data, limit)
        except zlib.error as error:
            raise MalformedError(f'a variable that cannot be unpacked, {error}') from error
        if unpacker.unconsumed_tail:
            raise MalformedError(f'a variable that unpacks to more than {limit:,} bytes: save it with -v6')
        self._unpacked += len(unpacked)
        return memoryview(unpacked)

    def _matrix(self, data: memoryview, depth: int) -> tuple[str, Any]:
        """Returns an array's name and what is in it."""
        self._count += 1
        if self._count > MAX_VALUES or depth > MAX_DEPTH:
            raise MalformedError(f'more than {MAX_VALUES:,} values, or cells more than {MAX_DEPTH} deep')
        if not data:
            return '', np.zeros((0, 0))  # an empty cell
        _, flags, place = self._element(data, 0)
        _, sizes, place = self._element(data, place)
        _, title, place = self._element(data, place)
        if len(flags) != 8 or len(sizes) % 4 or not 8 <= len(sizes) <= 32:
            raise MalformedError('an array without a type and sizes')
        form, shape = self._numbers(flags, 'u4')[0] & 0xFF, tuple(self._numbers(sizes, 'i4'))
        name, count = bytes(title).decode('latin1'), math.prod(shape)
        if min(shape) < 0:
            raise MalformedError(f'an array of {shape}')
        if form == _CELL:
            return name, self._matrices(data, place, count, depth)
        if form == _STRUCT:
            fields, place = self._fields(data, place)
            self._count += 0 if fields else count  # without fields they take no place in the file
            if self._count > MAX_VALUES:
                raise MalformedError(f'a struct of {count:,}')
            values = iter(self._matrices(data, place, count * len(fields), depth))
            structs = [{field: next(values) for field in fields} for _ in range(count)]
            return name, structs[0] if count == 1 else structs
        if form != _CHAR and form not in _NUMBERS:
            return name, None
        kind, content, _ = self._element(data, place) if count else (1, data[:0], 0)
        if form == _CHAR:
            order = {'<': 'le', '>': 'be'}[self._order]
            encoding = _TEXTS.get(kind, '')
            encoding += f'-{order}' if encoding in ('utf-16', 'utf-32') else ''
            return name, bytes(content).decode(encoding or 'latin1', 'replace')
        dtype = np.dtype(f'{self._order}{_DTYPES.get(kind, "V1")}')
        if dtype.kind == 'V' or len(content) != count * dtype.itemsize:
            raise MalformedError(f'an array of {shape} with {len(content):,} bytes of type {kind}')
        return name, np.frombuffer(content, dtype).reshape(shape, order='F')

    def _fields(self, data: memoryview, place: int) -> tuple[list[str], int]:
        """Returns the names of a struct's fields, and where its values begin."""
        _, lengths, place = self._element(data, place)
        _, names, place = self._element(data, place)
        length = self._numbers(lengths, 'i4')[0] if len(lengths) == 4 else 0
        if length < 1 or len(names) % length:
            raise MalformedError('a struct whose fields have no names')
        texts = (bytes(names[start : start + length]) for start in range(0, len(names), length))
        return [text.split(b'\0')[0].decode('latin1') for text in texts], place

    def _matrices(self, data: memoryview, place: int, count: int, depth: int) -> list[Any]:
        """Returns what is in the `count` arrays of a cell or a struct."""
        if count > MAX_VALUES:
            raise MalformedError(f'a cell or struct of {count:,}')
        values = []
        for _ in range(count):
            kind, part, place = self._element(data, place)
            if kind != _MATRIX:
                raise MalformedError(f'an element of type {kind} where an array belongs')
            values.append(self._matrix(part, depth + 1)[1])
        return values

    def _numbers(self, content: memoryview, dtype: str) -> list[int]:
        numbers: list[int] = np.frombuffer(content, f'{self._order}{dtype}').tolist()
        return numbers
