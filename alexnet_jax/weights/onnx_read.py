"""Reads ONNX: the graphs that this project writes, Caffe's AlexNets and torchvision's.

Of a foreign graph the layers are found by following it, Conv and Gemm in their order, and every constant of theirs is
compared with the network's: strides, padding, groups, windows, the formula of LRN. Weights that fit another network
than the graph's would give plausible, wrong numbers.
"""

import dataclasses
import math
import pathlib
from typing import Any

import numpy as np

from alexnet_jax.errors import InputError
from alexnet_jax.files import map_file
from alexnet_jax.model.network import Network
from alexnet_jax.model.spec import Variant
from alexnet_jax.model.zoo import VARIANTS
from alexnet_jax.weights import caffe, torchvision
from alexnet_jax.weights.layout import LAYERS, convert_to_channels_last, infer_name
from alexnet_jax.weights.metadata import FORMAT_KEY, check_hashes, make_foreign_network, parse_metadata
from alexnet_jax.weights.onnx_write import EXTERNAL, FLOAT, INT64, MEAN, ONNX, GraphBuilder
from alexnet_jax.weights.proto_messages import BYTES, VARINT, MalformedError, list_outer_fields, parse_message

MAX_NODES = 10_000
_DTYPES = {FLOAT: '<f4', INT64: '<i8', 10: '<f2', 11: '<f8'}  # TensorProto.DataType
# Operators and attributes in which a foreign graph must be the network's. Defaults: onnx/onnx docs/Operators.md.
_COMPARED: dict[str, dict[str, tuple[float, ...]]] = {
    'Conv': {'strides': (1, 1), 'pads': (0, 0, 0, 0), 'dilations': (1, 1), 'group': (1.0,)},
    'MaxPool': {'kernel_shape': (0, 0), 'strides': (1, 1), 'pads': (0, 0, 0, 0)},
    'LRN': {'size': (0.0,), 'alpha': (1e-4,), 'beta': (0.75,), 'bias': (1.0,)},
    'Gemm': {'alpha': (1.0,), 'beta': (1.0,), 'transA': (0.0,)},
}


def is_onnx(content: memoryview) -> bool:
    """Tells whether a file is a ModelProto, by its outermost fields: an ir_version and a graph."""
    fields = list_outer_fields(content)
    return (1, VARINT) in fields and fields.count((7, BYTES)) == 1


def load_onnx(path: pathlib.Path) -> Network:
    """Loads the network of an ONNX file; `InputError` where it is damaged, or of a network that is not known here."""
    try:
        model = Model(map_file(path))
        return _load_own(model, path) if FORMAT_KEY in model.metadata else _load_foreign(model, path)
    except MalformedError as error:
        raise InputError(f'{path} is no ONNX graph of an AlexNet, or damaged: {error}') from error


class Model:
    """What is read of a ModelProto; `MalformedError` where the content is none.

    Attributes:
      nodes: NodeProto messages in the file's order, which ONNX demands to be that of execution.
      inputs: names of the graph's inputs, those with an initializer left out.
      sizes: of the first of them, 0 for one that is left open; () where the graph does not say.
    """

    def __init__(self, content: memoryview) -> None:
        model = parse_message(ONNX.ModelProto, content)
        graph = model.graph
        self.nodes, self.metadata = graph.node, {_decode(x.key): _decode(x.value) for x in model.metadata_props}
        if max(len(graph.node), len(graph.initializer), len(model.metadata_props)) > MAX_NODES:
            raise MalformedError(f'more than {MAX_NODES:,} nodes')
        if not all(node.output for node in graph.node):
            raise MalformedError('an operator without a result')
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        self._filled = {}  # constants of one value by name: the name of their shape, and the value
        for node in graph.node:
            value = _find_attribute(node, 'value')
            if node.op_type == 'Constant' and value:
                if not value.HasField('t'):
                    raise MalformedError('a constant without a value')
                self._tensors[node.output[0]] = value.t
            elif node.op_type == 'ConstantOfShape' and node.input:
                fill = parse_tensor(value.t) if value else np.zeros(1, np.float32)
                if fill.size != 1:
                    raise MalformedError('a constant filled with more than one value')
                self._filled[node.output[0]] = node.input[0], fill.reshape(())
        if set(self._filled) & {shape for shape, _ in self._filled.values()}:
            raise MalformedError('a constant whose shape is filled itself')
        inputs = [value for value in graph.input if value.name not in self._tensors]
        self.inputs = [value.name for value in inputs]
        self.sizes = tuple(dim.dim_value for dim in inputs[0].type.tensor_type.shape.dim[:8]) if inputs else ()

    def get_array(self, name: str) -> np.ndarray:
        """Returns a constant of the graph, which takes no memory where it fills a shape; else raises MalformedError."""
        if name in self._filled:
            shape, value = self._filled[name]
            sizes = tuple(self.get_array(shape).ravel()[:9].tolist())
            if min(sizes, default=0) < 1 or math.prod(sizes) >= 2**40 or len(sizes) > 8 or type(sizes[0]) is not int:
                raise MalformedError(f'a constant of {sizes}')
            return np.broadcast_to(value, sizes)
        if name not in self._tensors:
            raise MalformedError('a layer whose weights are computed rather than stored')
        return parse_tensor(self._tensors[name])


def parse_tensor(tensor: Any) -> np.ndarray:
    """Returns the numbers of a TensorProto, floating-point or int64.

    Raises:
      MalformedError: it is of another type, kept in another file, or has not as many numbers as its shape says.
    """
    if tensor.data_location == EXTERNAL:
        raise MalformedError('its weights are in a file beside it; save it as one file')
    if tensor.data_type not in _DTYPES:
        raise MalformedError(f'a tensor of data type {tensor.data_type}; float16, 32, 64 and int64 are read')
    dtype, shape = np.dtype(_DTYPES[tensor.data_type]), tuple(tensor.dims[:9])
    if tensor.HasField('raw_data'):
        raw = tensor.raw_data
        if len(raw) % dtype.itemsize:
            raise MalformedError(f'{len(raw):,} bytes are no whole number of {dtype}')
        data = np.frombuffer(raw, dtype)
    else:
        fields = {FLOAT: tensor.float_data, INT64: tensor.int64_data}
        data = np.array(fields.get(tensor.data_type, tensor.double_data), dtype)
    if min(shape, default=1) < 1 or len(shape) > 8 or math.prod(shape) != data.size:
        raise MalformedError(f'a tensor of {shape} with {data.size:,} numbers')
    return data.reshape(shape)


def _load_own(model: Model, path: pathlib.Path) -> Network:
    network = parse_metadata(model.metadata, path=path)
    names = [f'{layer.name}/{part}' for layer in network.variant.layers for part in ('kernel', 'bias')]
    params = convert_to_channels_last(network.name, {name: model.get_array(name) for name in names}, source=path)
    mean, size = model.get_array(MEAN), network.variant.input_size
    if mean.shape != (1, 3, size, size) or mean.dtype != np.float32:
        raise MalformedError(f'its mean image is {mean.shape}')
    mean_image = np.ascontiguousarray(mean[0].transpose(1, 2, 0))
    return check_hashes(dataclasses.replace(network, params=params, mean_image=mean_image), model.metadata, path=path)


def _load_foreign(model: Model, path: pathlib.Path) -> Network:
    nodes = [node for node in model.nodes if node.op_type in _COMPARED]
    layers = [node for node in nodes if node.op_type in ('Conv', 'Gemm')]
    if [node.op_type for node in layers] != ['Conv'] * 5 + ['Gemm'] * 3:
        raise MalformedError(f'{len(layers)} Conv and Gemm, not five and three')
    if list(layers[0].input[:1]) != model.inputs[:1]:
        raise MalformedError('its first Conv does not read its input')
    kinds = ['Pooling' if node.op_type == 'MaxPool' else node.op_type for node in nodes]
    found = caffe.infer_variant(kinds) or torchvision.VARIANT
    _compare_operators(VARIANTS[found], nodes)
    arrays = {}
    for layer, node in zip(LAYERS, layers, strict=True):
        if len(node.input) != 3:
            raise MalformedError(f'{layer} has no bias')
        kernel = model.get_array(node.input[1])
        if node.op_type == 'Gemm' and not _get_attribute(node, 'transB', (0.0,))[0]:
            kernel = kernel.T
        arrays[f'{layer}/kernel'], arrays[f'{layer}/bias'] = kernel, model.get_array(node.input[2])
    name = infer_name(found, arrays)
    params = convert_to_channels_last(name, arrays, source=path)
    source, size = str(path), name.build().input_size
    if model.sizes[2:] not in ((), (size, size)):
        # The ONNX zoo's bvlc_alexnet is one: it declares 224, which Caffe2 made of it, and Caffe trained it on 227.
        source += f' (a graph for crops of {"x".join(map(str, model.sizes[2:]))}; its weights were trained on {size})'
    if found == torchvision.VARIANT:
        return make_foreign_network(name, params, mean_rgb=torchvision.MEAN_RGB, source=source)
    return caffe.make_caffe_network(name, params, source=source)


def _compare_operators(variant: Variant, nodes: list[Any]) -> None:
    """Compares the graph's operators with those of `onnx_write`; raises MalformedError where one differs."""
    builder = GraphBuilder(variant, {})
    builder.add_network()
    expected = [node for node in builder.model.graph.node if node.op_type in _COMPARED]
    if [node.op_type for node in expected] != [node.op_type for node in nodes]:
        raise MalformedError(f'its layers are not those of {variant.name}')
    for node, ours in zip(nodes, expected, strict=True):
        for name, default in _COMPARED[node.op_type].items():
            found, wanted = _get_attribute(node, name, default), _get_attribute(ours, name, default)
            # Both are float32. Caffe2's converter pads a pool's end where Caffe rounds sizes up; of crops of 227 there
            # is nothing to round.
            same = len(found) == len(wanted) and np.allclose(found, wanted, rtol=1e-6, atol=0)
            if not same and (node.op_type, name, found) != ('MaxPool', 'pads', (0, 0, 1, 1)):
                shown = [values if len(default) > 1 else values[0] for values in (found, wanted)]
                text = f'{node.op_type} {node.output[0][:40]} has {name} {shown[0]}, and {variant.name} {shown[1]}'
                raise MalformedError(text)


def _find_attribute(node: Any, name: str) -> Any:
    return {attribute.name: attribute for attribute in node.attribute}.get(name)


def _get_attribute(node: Any, name: str, default: tuple[float, ...]) -> tuple[float, ...]:
    """Returns an INTS attribute, or a FLOAT or INT as one float: what `default` is of."""
    attribute = _find_attribute(node, name)
    if attribute is None:
        return default
    if len(default) > 1:
        return tuple(attribute.ints)
    return (attribute.f if attribute.HasField('f') else float(attribute.i),)


def _decode(text: str | bytes) -> str:
    """Returns text of a file; protobuf gives what is not UTF-8 as bytes."""
    return text if isinstance(text, str) else text.decode('utf-8', 'replace')
