"""ONNX's messages: written for a graph of this project, read from anyone's.

Source: onnx/onnx onnx/onnx.proto, whose field numbers are below, and docs/Operators.md.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from alexnet_jax.interchange.wire import (
    Malformed,
    Value,
    collect,
    encode,
    floats,
    integer,
    integers,
    messages,
    prefix,
    text,
)

IR_VERSION, OPSET = 8, 17  # ONNX 1.12, of 2022
FLOAT, INT64 = 1, 7  # TensorProto.DataType
_DTYPES = {1: '<f4', 7: '<i8', 10: '<f2', 11: '<f8'}
_EXTERNAL = 1  # TensorProto.DataLocation
MAX_NODES = 10_000

Attribute = int | float | Sequence[int]


# Writing


def tensor(name: str, array: np.ndarray) -> tuple[bytes, bytes | memoryview]:
    """A TensorProto of float32, in two pieces: all else, and the numbers, which are not copied."""
    data = np.ascontiguousarray(array, '<f4')
    head = b''.join(encode(1, int(size)) for size in array.shape) + encode(2, FLOAT) + encode(8, name)
    return head + prefix(9, data.nbytes), data.reshape(-1).view(np.uint8).data


def node(kind: str, inputs: Iterable[str], outputs: Iterable[str], name: str, **attributes: Attribute) -> bytes:
    """A NodeProto: an operator of ONNX's own, the names it reads and writes, its attributes."""
    message = b''.join([*(encode(1, x) for x in inputs), *(encode(2, x) for x in outputs)])
    message += encode(3, name) + encode(4, kind)
    return message + b''.join(encode(5, _attribute(key, value)) for key, value in attributes.items())


def value(name: str, dims: Sequence[int | str]) -> bytes:
    """A ValueInfoProto of float32; a text is the name of a size that is left open."""
    sizes = [encode(1, encode(1 if isinstance(size, int) else 2, size)) for size in dims]
    return encode(1, name) + encode(2, encode(1, encode(1, FLOAT) + encode(2, b''.join(sizes))))


def model(
    nodes: Iterable[bytes],
    tensors: Iterable[tuple[bytes, bytes | memoryview]],
    *,
    inputs: Iterable[bytes],
    outputs: Iterable[bytes],
    metadata: Mapping[str, str],
    doc: str,
) -> Iterator[bytes | memoryview]:
    """A ModelProto of one graph and metadata_props, in pieces."""
    parts = [(1, nodes), (11, inputs), (12, outputs)]
    graph: list[bytes | memoryview] = [encode(2, 'alexnet'), *(encode(number, m) for number, ms in parts for m in ms)]
    for head, numbers in tensors:
        graph += [prefix(5, len(head) + len(numbers)), head, numbers]
    yield encode(1, IR_VERSION) + encode(2, 'alexnet_jax') + encode(6, doc) + encode(8, encode(2, OPSET))
    yield prefix(7, sum(map(len, graph)))
    yield from graph
    yield from (encode(14, encode(1, key) + encode(2, text)) for key, text in metadata.items())


def _attribute(name: str, value: Attribute) -> bytes:
    """An AttributeProto: FLOAT 1, INT 2 or INTS 7."""
    if isinstance(value, float):
        return encode(1, name) + encode(2, value) + encode(20, 1)
    if isinstance(value, int):
        return encode(1, name) + encode(3, value) + encode(20, 2)
    return encode(1, name) + b''.join(encode(8, item) for item in value) + encode(20, 7)


# Reading


@dataclasses.dataclass(frozen=True)
class Node:
    """An operator of a graph; `attributes` holds messages, see `number`, `numbers` and `array`."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, memoryview]

    def number(self, name: str, default: float) -> float:
        """A FLOAT or INT attribute."""
        if name not in self.attributes:
            return default
        found = collect(self.attributes[name], 2, 3)
        single = floats(found[2], '<f4')
        return float(single[-1]) if single.size else float(integer(found[3]))

    def numbers(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """An INTS attribute."""
        if name not in self.attributes:
            return default
        return tuple(integers(collect(self.attributes[name], 8)[8]))


@dataclasses.dataclass(frozen=True)
class Model:
    """What is read of a model.

    Attributes:
      nodes: in the file's order, which ONNX demands to be that of execution.
      tensors: initializers and constants by name: TensorProto messages, still to be read with `array`.
      filled: constants of one value by name: the name of their shape, and the value.
      inputs: names of the graph's inputs, those with an initializer left out.
      sizes: of the first of them, 0 for one that is left open; () where the graph does not say.
      metadata: metadata_props.
    """

    nodes: tuple[Node, ...]
    tensors: Mapping[str, memoryview]
    filled: Mapping[str, tuple[str, np.ndarray]]
    inputs: tuple[str, ...]
    sizes: tuple[int, ...]
    metadata: Mapping[str, str]

    def array(self, name: str) -> np.ndarray:
        """A constant of the graph; one that fills a shape takes no memory.

        Raises:
          Malformed: there is none of that name, or it cannot be read.
        """
        if name in self.filled:
            shape, value = self.filled[name]
            sizes = tuple(int(size) for size in self.array(shape).ravel()[:9])
            if min(sizes, default=0) < 1 or math.prod(sizes) >= 2**40 or len(sizes) > 8:
                raise Malformed(f'a constant of {sizes}')
            return np.broadcast_to(value, sizes)
        if name not in self.tensors:
            raise Malformed('a layer whose weights are computed rather than stored')
        return array(self.tensors[name])


def read(message: memoryview) -> Model:
    """A ModelProto.

    Raises:
      Malformed: it is none.
    """
    found = collect(message, 7, 14)
    if len(messages(found[7])) != 1:
        raise Malformed('it has no graph')
    graph = collect(messages(found[7])[0], 1, 5, 11)
    if len(graph[1]) > MAX_NODES or len(graph[5]) > MAX_NODES or len(found[14]) > MAX_NODES:
        raise Malformed(f'more than {MAX_NODES:,} nodes')
    nodes = tuple(_node(view) for view in messages(graph[1]))
    tensors = {text(collect(view, 8)[8]): view for view in messages(graph[5])}
    filled = {}
    for each in nodes:
        if each.kind == 'Constant' and 'value' in each.attributes:
            tensors[each.outputs[0]] = _tensor_of(each)
        elif each.kind == 'ConstantOfShape' and each.inputs:
            fill = array(_tensor_of(each)) if 'value' in each.attributes else np.zeros(1, np.float32)
            if fill.size != 1:
                raise Malformed('a constant filled with more than one value')
            filled[each.outputs[0]] = each.inputs[0], fill.reshape(())
    if set(filled) & {shape for shape, _ in filled.values()}:
        raise Malformed('a constant whose shape is filled itself')
    declared = [(text(collect(view, 1)[1]), view) for view in messages(graph[11])]
    inputs = [(name, view) for name, view in declared if name not in tensors]
    sizes = _sizes(inputs[0][1]) if inputs else ()
    metadata = {}
    for view in messages(found[14]):
        pair = collect(view, 1, 2)
        metadata[text(pair[1])] = text(pair[2])
    return Model(nodes, tensors, filled, tuple(name for name, _ in inputs), sizes, metadata)


def array(message: memoryview) -> np.ndarray:
    """The numbers of a TensorProto, floating-point or int64; a view of the file where they are stored raw.

    Raises:
      Malformed: it is none, of another type, kept in another file, or has not as many numbers as its shape says.
    """
    found = collect(message, 1, 2, 4, 7, 9, 10, 14)
    if integer(found[14]) == _EXTERNAL:
        raise Malformed('its weights are in a file beside it; save it as one file')
    kind = integer(found[2])
    if kind not in _DTYPES:
        raise Malformed(f'a tensor of data type {kind}; float16, 32, 64 and int64 are read')
    shape = tuple(integers(found[1], most=8))
    if found[9]:
        data = floats(found[9][-1:], _DTYPES[kind])
    elif kind == INT64:
        data = np.array(integers(found[7], most=1000), np.int64)
    else:
        data = floats(found[{FLOAT: 4}.get(kind, 10)], _DTYPES[kind])
    if min(shape, default=1) < 1 or math.prod(shape) != data.size:
        raise Malformed(f'a tensor of {shape} with {data.size:,} numbers')
    return data.reshape(shape)


def _node(message: memoryview) -> Node:
    found = collect(message, 1, 2, 4, 5)
    attributes = {text(collect(view, 1)[1]): view for view in messages(found[5])}
    outputs = _texts(found[2])
    if not outputs:
        raise Malformed('an operator without a result')
    return Node(text(found[4]), _texts(found[1]), outputs, attributes)


def _sizes(declared: memoryview) -> tuple[int, ...]:
    """ValueInfoProto.type.tensor_type.shape.dim[].dim_value."""
    found = messages(collect(declared, 2)[2])
    for number in (1, 2):
        found = [inner for view in found for inner in messages(collect(view, number)[number])]
    dims = [dim for view in found for dim in messages(collect(view, 1)[1])]
    return tuple(integer(collect(dim, 1)[1]) for dim in dims[:8])


def _texts(values: list[Value]) -> tuple[str, ...]:
    return tuple(text([view]) for view in messages(values))


def _tensor_of(each: Node) -> memoryview:
    """The tensor of a constant's attribute 'value'."""
    tensors = messages(collect(each.attributes['value'], 5)[5])
    if not tensors:
        raise Malformed('a constant without a value')
    return tensors[-1]
