"""Protocol buffers as Google's own library writes and reads them."""

import hypothesis
import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import strategies as st
from interchange.foreign import field, varint

from alexnet_jax.interchange import wire

TYPES = {
    'integer': (1, 3, 1),
    'name': (2, 9, 1),
    'packed': (3, 2, 3),
    'loose': (4, 2, 3),
    'double': (15, 1, 3),
    'far': (16, 2, 3),
}


@pytest.fixture(scope='module')
def message():
    """A message type: optional int64 and string, repeated floats packed and not, doubles not, floats of a long tag."""
    file = descriptor_pb2.FileDescriptorProto(name='m.proto', package='m', syntax='proto2')
    kind = file.message_type.add(name='M')
    for name, (number, code, label) in TYPES.items():
        entry = kind.field.add(name=name, number=number, type=code, label=label)
        entry.options.packed = name == 'packed'
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName('m.M'))


FLOATS = st.lists(st.floats(width=32, allow_nan=False), max_size=40)


@hypothesis.settings(max_examples=100, derandomize=True, database=None, deadline=None)
@hypothesis.given(st.integers(-(2**63), 2**63 - 1), st.text(max_size=300), FLOATS, FLOATS, FLOATS, FLOATS)
def test_what_protobuf_writes_is_read_as_it_was(message, integer, name, packed, loose, double, far):
    values = {'packed': packed, 'loose': loose, 'double': double, 'far': far}
    written = message(integer=integer, name=name, **values).SerializeToString()
    found = wire.collect(memoryview(written), 1, 2, 3, 4, 15, 16)
    assert wire.integer(found[1]) == integer
    assert wire.text(found[2]) == name
    for number, key in ((3, 'packed'), (4, 'loose'), (15, 'double'), (16, 'far')):
        assert wire.floats(found[number], '<f8' if key == 'double' else '<f4').tolist() == values[key], key


@hypothesis.settings(max_examples=100, derandomize=True, database=None, deadline=None)
@hypothesis.given(st.integers(-(2**63), 2**63 - 1), st.text(max_size=300), st.floats(width=32, allow_nan=False))
def test_what_is_written_here_protobuf_reads_as_it_was(message, integer, name, number):
    written = wire.encode(1, integer) + wire.encode(2, name) + wire.encode(4, number)
    assert message.FromString(written) == message(integer=integer, name=name, loose=[number])


def test_a_million_loose_numbers_are_one_value():
    numbers = np.random.default_rng(0).normal(size=1_000_000).astype('<f4')
    loose = np.empty((len(numbers), 5), np.uint8)
    loose[:, 0], loose[:, 1:] = 5 << 3 | 5, numbers.view(np.uint8).reshape(-1, 4)
    (value,) = wire.collect(memoryview(loose.tobytes() + field(1, 7)), 5)[5]
    np.testing.assert_array_equal(wire.floats([value], '<f4'), numbers)


@pytest.mark.parametrize(
    ('data', 'says'),
    [
        (b'\x0a\x05abc', 'field 1 of 5 bytes where 3 are left'),
        (b'\x0a' + varint(2**63), 'where 0 are left'),
        (b'\x08', 'a number is cut short'),
        (b'\x08' + b'\xff' * 10, 'a number of more than 64 bits'),
        (b'\x0d\0\0', 'field 1 is cut short'),
        (b'\x0b\x0c', 'field 1 of wire type 3'),
        (b'\x00\x01', 'field number 0'),
        (b'\x08\x00' * (wire.MAX_FIELDS + 1), 'more than 1,000,000 fields'),
    ],
)
def test_what_is_no_message_is_refused(data, says):
    with pytest.raises(wire.Malformed, match=says):
        list(wire.fields(memoryview(data)))


@pytest.mark.parametrize(
    ('read', 'says'),
    [
        (lambda: wire.text([7]), 'a number where a message belongs'),
        (lambda: wire.floats([7], '<f4'), 'an integer or a number of another size'),
        (lambda: wire.floats([np.zeros((2, 8), np.uint8)], '<f4'), 'an integer or a number of another size'),
        (lambda: wire.floats([memoryview(b'12345')], '<f4'), '5 bytes are no whole number of <f4'),
        (lambda: wire.integers([memoryview(b'\1' * 100)], most=8), 'more than 8 integers'),
        (lambda: wire.integers([np.zeros((2, 8), np.uint8)]), 'a floating-point number where an integer belongs'),
    ],
)
def test_a_value_of_another_type_is_refused(read, says):
    with pytest.raises(wire.Malformed, match=says):
        read()
