"""Messages are parsed by protobuf once they have been counted: what is damaged or would take too much is refused."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from weights.foreign import field, varint

from alexnet_jax.weights import proto_messages
from alexnet_jax.weights.proto_messages import (
    MAX_FIELDS,
    MalformedError,
    iter_fields,
    list_outer_fields,
    make_message_classes,
    parse_message,
)

SCHEMA = {
    'Outer': {
        'integer': (1, 'int64'),
        'name': (2, 'string'),
        'integers': (3, ['int64']),
        'loose': (4, ['float']),
        'inner': (5, ['Inner']),
        'double': (15, ['double']),
        'far': (16, ['float']),
    },
    'Inner': {'data': (1, 'bytes')},
}
FLOATS = st.lists(st.floats(width=32, allow_nan=False), max_size=40)


@pytest.fixture(scope='module')
def outer():
    return make_message_classes('test', SCHEMA).Outer


@hypothesis.settings(max_examples=15, derandomize=True, database=None, deadline=None)
@hypothesis.given(st.integers(-(2**63), 2**63 - 1), st.text(max_size=300), FLOATS, FLOATS, FLOATS)
def test_parse_message_returns_what_was_written(outer, integer, name, loose, double, far):
    written = outer(integer=integer, name=name, loose=loose, double=double, far=far, inner=[{'data': b'a'}, {}])
    assert parse_message(outer, memoryview(written.SerializeToString())) == written


def test_parse_message_reads_packed_numbers_too(outer):
    packed = field(3, b''.join(map(varint, [1, -2, 300]))) + field(4, np.float32([1.5, -2]).tobytes())
    found = parse_message(outer, memoryview(packed))
    assert (list(found.integers), list(found.loose)) == ([1, -2, 300], [1.5, -2])


def test_parse_message_skips_undeclared_fields(outer):
    found = parse_message(outer, memoryview(field(9, 7) + field(1, 3) + field(99, b'any')))
    assert found.integer == 3


def loose_floats(numbers):
    """Field 5, each number with a tag of its own."""
    loose = np.empty((len(numbers), 5), np.uint8)
    loose[:, 0], loose[:, 1:] = 5 << 3 | 5, numbers.view(np.uint8).reshape(-1, 4)
    return loose.tobytes()


def test_parse_message_counts_a_million_loose_numbers_as_one_field():
    numbers = np.random.default_rng(0).normal(size=MAX_FIELDS + 1).astype('<f4')
    blob = make_message_classes('blob', {'Blob': {'data': (5, ['float'])}}).Blob
    content = memoryview(loose_floats(numbers) + field(1, 7))
    assert list_outer_fields(content) == [(5, 5), (1, 0)]
    np.testing.assert_array_equal(np.array(parse_message(blob, content).data, np.float32), numbers)


@pytest.mark.parametrize(
    ('data', 'says'),
    [
        (b'\x0a\x05abc', 'field 1 of 5 bytes where 3 are left'),
        (b'\x0a' + varint(2**63), 'where 0 are left'),
        (b'\x08', 'a number is cut short'),
        (b'\x08' + b'\xff' * 10, 'a number is cut short, or has more than 64 bits'),
        (b'\x0d\0\0', 'field 1 is cut short'),
        (b'\x0b\x0c', 'field 1 of wire type 3'),
        (b'\x00\x01', 'field number 0'),
    ],
)
def test_iter_fields_refuses_damage(data, says):
    with pytest.raises(MalformedError, match=says):
        list(iter_fields(memoryview(data)))
    assert list_outer_fields(memoryview(data)) == []


@pytest.mark.parametrize(
    ('data', 'says'),
    [
        (field(5, b'\x0a\x05'), 'field 1 of 5 bytes where 0 are left'),
        (field(2, 7), r'test\.Outer\.name of wire type 0 where 2 belongs'),
        (field(4, 7), r'test\.Outer\.loose of wire type 0 where 5 belongs'),
        (b'\x21' + bytes(8), r'test\.Outer\.loose of wire type 1 where 5 belongs'),
        (field(1, b'12'), r'test\.Outer\.integer of wire type 2 where 0 belongs'),
        (field(4, b'12345'), 'Error parsing message'),
    ],
)
def test_parse_message_refuses_fields_of_another_type(outer, data, says):
    with pytest.raises(MalformedError, match=says):
        parse_message(outer, memoryview(data))


@pytest.mark.parametrize(
    'data',
    [
        field(9, 0) * 1001,
        (field(5, b'') * 10 + field(5, field(9, 0) * 10)) * 50,
        field(3, bytes(1000)),
        field(5, b'') * 10 + field(3, bytes(991)),
    ],
    ids=['of one message', 'of all messages', 'packed', 'together'],
)
def test_parse_message_refuses_too_many_fields(outer, data, monkeypatch):
    monkeypatch.setattr(proto_messages, 'MAX_FIELDS', 1000)
    with pytest.raises(MalformedError, match='more than 1,000 fields'):
        parse_message(outer, memoryview(data))
