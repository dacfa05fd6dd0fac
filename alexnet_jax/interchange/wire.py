"""Protocol buffers as they lie in a file: field numbers and values, without anyone's schema.

Format: protobuf.dev/programming-guides/encoding. Caffe's and ONNX's files are read with it, and ONNX's written. Values
are views of the file, so that a message of any size costs nothing until it is looked at, and a length that lies
past the end of the message that holds it is refused.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
MAX_FIELDS = 1_000_000  # in one message; an AlexNet's have some tens, a run of bare floats counting as one
_FIXED = {FIXED64: 8, FIXED32: 4}

Value = int | memoryview | np.ndarray
Fields = dict[int, list[Value]]


class Malformed(ValueError):
    """These bytes are no such message; says why in a few words."""


def fields(message: memoryview) -> Iterator[tuple[int, Value]]:
    """(field number, value) of each field, in the file's order.

    A value is an int (unsigned, 64 bits) for a varint, a view for a string, a message or packed numbers, and a uint8
    array (n, 4) or (n, 8) for fixed-size numbers, n of them where n fields of the same number follow one another.

    Raises:
      Malformed: a field reaches past the end, is of a type that nobody writes, or there are too many.
    """
    place = 0
    for _ in range(MAX_FIELDS):
        if place == len(message):
            return
        start = place
        tag, place = _varint(message, place)
        number, kind = tag >> 3, tag & 7
        if not 0 < number < 2**29:
            raise Malformed(f'field number {number}')
        if kind == VARINT:
            value, place = _varint(message, place)
            yield number, value
        elif kind == BYTES:
            length, place = _varint(message, place)
            if length > len(message) - place:
                raise Malformed(f'field {number} of {length:,} bytes where {len(message) - place:,} are left')
            yield number, message[place : place + length]
            place += length
        elif kind in _FIXED:
            width = _FIXED[kind]
            step = place - start + width
            count = _repeats(message, start, tag=message[start:place], step=step)
            if not count:
                raise Malformed(f'field {number} is cut short')
            yield number, np.ndarray((count, width), np.uint8, message, place, (step, 1))
            place = start + count * step
        else:
            raise Malformed(f'field {number} of wire type {kind}')
    raise Malformed(f'more than {MAX_FIELDS:,} fields')


def collect(message: memoryview, *numbers: int) -> Fields:
    """{number: its values in order} of the fields that are asked for, [] where there are none."""
    found: Fields = {number: [] for number in numbers}
    for number, value in fields(message):
        if number in found:
            found[number].append(value)
    return found


def messages(values: list[Value]) -> list[memoryview]:
    """The values, if all are messages, strings or bytes."""
    if not all(isinstance(value, memoryview) for value in values):
        raise Malformed('a number where a message belongs')
    return [value for value in values if isinstance(value, memoryview)]


def text(values: list[Value]) -> str:
    """The last of them as UTF-8 text, '' where there is none; what is no UTF-8 is shown as U+FFFD."""
    views = messages(values)
    return bytes(views[-1]).decode('utf-8', 'replace') if views else ''


def integers(values: list[Value], *, most: int = 64) -> list[int]:
    """Signed 64-bit integers, packed or not, at most so many."""
    found: list[int] = []
    for value in values:
        if isinstance(value, int):
            found.append(_signed(value))
        elif isinstance(value, memoryview):
            place = 0
            while place < len(value) and len(found) <= most:
                number, place = _varint(value, place)
                found.append(_signed(number))
        else:
            raise Malformed('a floating-point number where an integer belongs')
    if len(found) > most:
        raise Malformed(f'more than {most} integers')
    return found


def integer(values: list[Value], default: int = 0) -> int:
    """The last of them; `default` where there is none."""
    return [default, *integers(values[-1:])][-1]


def floats(values: list[Value], dtype: str) -> np.ndarray:
    """Numbers of '<f4' or '<f8', packed or not: a view of the file where they are packed in one piece."""
    size = np.dtype(dtype).itemsize
    pieces = []
    for value in values:
        if isinstance(value, memoryview):
            if len(value) % size:
                raise Malformed(f'{len(value):,} bytes are no whole number of {dtype}')
            pieces.append(np.frombuffer(value, dtype))
        elif isinstance(value, np.ndarray) and value.shape[1] == size:
            pieces.append(np.ascontiguousarray(value).view(dtype)[:, 0])
        else:
            raise Malformed(f'an integer or a number of another size where {dtype} belongs')
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces or [np.empty(0, dtype)])


def encode(number: int, value: int | float | str | bytes) -> bytes:
    """One field: an int as a varint (negative ones in two's complement), a float as float32, text and bytes as such."""
    if isinstance(value, int):
        return _encoded(number << 3 | VARINT) + _encoded(value % 2**64)
    if isinstance(value, float):
        return _encoded(number << 3 | FIXED32) + struct.pack('<f', value)
    data = value.encode() if isinstance(value, str) else value
    return prefix(number, len(data)) + data


def prefix(number: int, length: int) -> bytes:
    """What comes before so many bytes of text or of a message, as field `number`."""
    return _encoded(number << 3 | BYTES) + _encoded(length)


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """The number that begins at `place`, and where the next thing begins."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            raise Malformed('a number is cut short')
        byte = message[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value % 2**64, place
    raise Malformed('a number of more than 64 bits')


def _encoded(value: int) -> bytes:
    groups = []
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes([*groups, value])


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _repeats(message: memoryview, start: int, *, tag: memoryview, step: int) -> int:
    """How many fields of `step` bytes with this tag follow one another from `start` on."""
    most = (len(message) - start) // step
    if len(tag) > 1:  # only for numbers of 16 and more, of which nobody has many
        return min(most, 1)
    tags = np.frombuffer(message, np.uint8)[start:][: most * step : step]
    looked = 16
    while True:  # in growing steps: looking at all that is left for each short run would take the square of the time
        other = np.flatnonzero(tags[:looked] != tag[0])
        if len(other) or looked >= most:
            return int(other[0]) if len(other) else most
        looked *= 2
