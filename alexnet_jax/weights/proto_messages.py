"""Protocol buffers of ONNX and Caffe: message classes from tables of fields, and a limit on the fields of a file.

The protobuf library parses and writes the messages. It takes 150 bytes of memory for an empty message, which is two
bytes of a file, so fields are counted before they are parsed. Encoding: protobuf.dev/programming-guides/encoding.
"""

import re
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

MAX_FIELDS = 1_000_000  # in one file; an AlexNet's has some hundreds, a run of bare floats counting as one
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types
_NUMBER = re.compile(rb'[\x80-\xff]{0,9}[\x00-\x7f]')
# A field of fixed size, and all that follow with the same tag: bare floats may be millions.
_RUNS = {
    wire_type: re.compile(rb'([\x80-\xff]*[\x00-\x7f]).{%d}(?:\1.{%d})*+' % (size, size), re.DOTALL)
    for wire_type, size in ((FIXED64, 8), (FIXED32, 4))
}
_Field = descriptor_pb2.FieldDescriptorProto
_WIRE_TYPES = {_Field.TYPE_INT64: VARINT, _Field.TYPE_FLOAT: FIXED32, _Field.TYPE_DOUBLE: FIXED64}  # the others: BYTES


class MalformedError(ValueError):
    """These bytes are not the message that is looked for; says why in a few words."""


def make_message_classes(package: str, schema: Mapping[str, Mapping[str, tuple[int, str | list[str]]]]) -> Any:
    """Makes protobuf classes, one attribute for each message of `schema`.

    Args:
      package: any name of one's own.
      schema: {message: {field: (number, type)}}. A type is that of a .proto file or another message of the schema; in
        a list, the field is repeated. Fields that are not declared are skipped when a file is parsed.
    """
    file = descriptor_pb2.FileDescriptorProto(name=f'{package}.proto', package=package, syntax='proto2')
    for name, fields in schema.items():
        entry = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            declared = entry.field.add(name=field, number=number, label=_Field.LABEL_OPTIONAL)
            if isinstance(kind, list):
                declared.label, kind = _Field.LABEL_REPEATED, kind[0]
            if kind in schema:
                declared.type_name = f'.{package}.{kind}'
            declared.type = _Field.TYPE_MESSAGE if kind in schema else _Field.Type.Value(f'TYPE_{kind.upper()}')
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    descriptors = {name: pool.FindMessageTypeByName(f'{package}.{name}') for name in schema}
    return SimpleNamespace(**{name: message_factory.GetMessageClass(found) for name, found in descriptors.items()})


def parse_message(message_class: Any, content: memoryview) -> Any:
    """Parses a message of a class that `make_message_classes` made. Text that is not UTF-8 comes back as bytes.

    Raises:
      MalformedError: it is damaged, a declared field is of another type, or there are more fields than MAX_FIELDS.
    """
    _count_fields(message_class.DESCRIPTOR, content, MAX_FIELDS)
    try:
        return message_class.FromString(content)
    except message.DecodeError as error:  # 2 GiB is protobuf's limit
        raise MalformedError(str(error)) from error


def iter_fields(content: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Yields (number, wire type, bytes of the value) of a message's fields; a run of the same fixed-size field once.

    Raises:
      MalformedError: a field reaches past the end, is of a type that nobody writes, or there are too many.
    """
    place = 0
    for _ in range(MAX_FIELDS):
        if place == len(content):
            return
        start = place
        tag, place = _parse_varint(content, place)
        number, wire_type = tag >> 3, tag & 7
        if not 0 < number < 2**29:
            raise MalformedError(f'field number {number}')
        if wire_type == VARINT:
            _, end = _parse_varint(content, place)
        elif wire_type == BYTES:
            length, place = _parse_varint(content, place)
            end = place + length
            if end > len(content):
                raise MalformedError(f'field {number} of {length:,} bytes where {len(content) - place:,} are left')
        elif wire_type in _RUNS:
            run = _RUNS[wire_type].match(content, start)
            if run is None:
                raise MalformedError(f'field {number} is cut short')
            end = run.end()
        else:
            raise MalformedError(f'field {number} of wire type {wire_type}')
        yield number, wire_type, content[place:end]
        place = end
    raise MalformedError(f'more than {MAX_FIELDS:,} fields')


def list_outer_fields(content: memoryview) -> list[tuple[int, int]]:
    """Lists (number, wire type) of a message's own fields; none if it is damaged."""
    try:
        return [(number, wire_type) for number, wire_type, _ in iter_fields(content)]
    except MalformedError:
        return []


def _count_fields(descriptor: Any, content: memoryview, left: int) -> int:
    """Returns how many of `left` fields are left after those of a message and of the messages in it."""
    for number, wire_type, value in iter_fields(content):
        left -= 1
        field = descriptor.fields_by_number.get(number)
        if field is not None:
            expected = _WIRE_TYPES.get(field.type, BYTES)
            if wire_type != expected and not (wire_type == BYTES and field.is_repeated):
                raise MalformedError(f'{field.full_name} of wire type {wire_type} where {expected} belongs')
            if field.message_type is not None:
                left = _count_fields(field.message_type, value, left)
            elif wire_type == BYTES and expected == VARINT:  # packed integers, of a byte or more
                left -= len(value)
        if left < 0:
            raise MalformedError(f'more than {MAX_FIELDS:,} fields')
    return left


def _parse_varint(content: memoryview, place: int) -> tuple[int, int]:
    """Returns the number that begins at `place`, and where it ends."""
    found = _NUMBER.match(content, place)
    if found is None:
        raise MalformedError('a number is cut short, or has more than 64 bits')
    return sum((byte & 127) << 7 * index for index, byte in enumerate(found.group())), found.end()
