"""Reads ONNX: the graphs that this project writes, Caffe's AlexNets and torchvision's.

Of a foreign graph the layers are found by following it (onnx_trace.py), and all of them and their constants are
compared with the network's (layer_sequence.py): strides, padding, groups, windows, the formula of LRN.
"""

import dataclasses
import math
import pathlib
from typing import Any

import numpy as np

from alexnet_jax.errors import InputError
from alexnet_jax.files import map_file
from alexnet_jax.model.network import Network
from alexnet_jax.weights import caffe, torchvision
from alexnet_jax.weights.layer_sequence import (
    check_layers,
    check_same_graph,
    find_attribute,
    get_attribute,
    infer_variant,
)
from alexnet_jax.weights.layout import LAYERS, convert_to_channels_last, infer_name
from alexnet_jax.weights.metadata import FORMAT_KEY, check_hashes, make_foreign_network, parse_metadata
from alexnet_jax.weights.onnx_trace import trace_layers
from alexnet_jax.weights.onnx_write import EXTERNAL, FLOAT, INT64, MEAN, ONNX
from alexnet_jax.weights.proto_messages import BYTES, VARINT, MalformedError, list_outer_fields, parse_message

MAX_NODES = 10_000
_DTYPES = {FLOAT: '<f4', INT64: '<i8', 10: '<f2', 11: '<f8'}  # TensorProto.DataType


def is_onnx(content: memoryview) -> bool:
    """Tells whether a file is a ModelProto, by its outermost fields: an ir_version and a graph."""
    fields = list_outer_fields(content)
    return (1, VARINT) in fields and fields.count((7, BYTES)) == 1


def load_onnx(path: pathlib.Path) -> Network:
    """Loads the network of an ONNX file; `InputError` where it is damaged, or of a network that is not known here."""
    try:
        model = Model(map_file(path), folder=path.parent)
        return _load_own(model, path) if FORMAT_KEY in model.metadata else _load_foreign(model, path)
    except MalformedError as error:
        raise InputError(
            f'{path} is no ONNX graph of an AlexNet that is known here, or damaged: {error}. Read are the graphs of '
            "torchvision's alexnet, of Caffe's two and those that --to=onnx writes"
        ) from error


class Model:
    """What is read of a ModelProto; `MalformedError` where the content is none.

    Attributes:
      nodes: NodeProto messages in the file's order, which ONNX demands to be that of execution.
      inputs: names of the graph's inputs, those with an initializer left out.
      sizes: of the first of them, 0 for one that is left open; () where the graph does not say.
      outputs: names of the graph's outputs.
    """

    def __init__(self, content: memoryview, *, folder: pathlib.Path | None = None) -> None:
        """Parses the content of a file in `folder`, where tensors that are kept in other files lie."""
        model = parse_message(ONNX.ModelProto, content)
        graph = model.graph
        self.nodes, self.metadata = graph.node, {_decode(x.key): _decode(x.value) for x in model.metadata_props}
        if max(len(graph.node), len(graph.initializer), len(model.metadata_props)) > MAX_NODES:
            raise MalformedError(f'more than {MAX_NODES:,} nodes')
        if not all(node.output for node in graph.node):
            raise MalformedError('an operator without a result')
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        self._folder = folder
        self._same: dict[str, tuple[str, bool]] = {}  # constants that are another, and whether that is transposed
        self._filled = {}  # constants of one value by name: the name of their shape, and the value
        for node in graph.node:
            value = find_attribute(node, 'value')
            if node.op_type == 'Constant' and value:
                if not value.HasField('t'):
                    raise MalformedError('a constant without a value')
                self._tensors[node.output[0]] = value.t
            elif node.op_type == 'ConstantOfShape' and node.input:
                fill = parse_tensor(value.t, folder=folder) if value else np.zeros(1, np.float32)
                if fill.size != 1:
                    raise MalformedError('a constant filled with more than one value')
                self._filled[node.output[0]] = node.input[0], fill.reshape(())
            elif node.op_type in ('Identity', 'Transpose') and len(node.input) == 1 and self.is_constant(node.input[0]):
                # PyTorch keeps equal biases once, and older versions turn a Linear's matrix in the graph.
                if (turned := node.op_type == 'Transpose') and get_attribute(node, 'perm', (1, 0)) != (1, 0):
                    raise MalformedError('a constant whose axes are turned other than a matrix is')
                self._same[node.output[0]] = node.input[0], turned
        if set(self._filled) & {shape for shape, _ in self._filled.values()}:
            raise MalformedError('a constant whose shape is filled itself')
        inputs = [value for value in graph.input if value.name not in self._tensors]
        self.inputs = [value.name for value in inputs]
        self.outputs = [value.name for value in graph.output]
        self.sizes = tuple(dim.dim_value for dim in inputs[0].type.tensor_type.shape.dim[:8]) if inputs else ()

    def is_constant(self, name: str) -> bool:
        """Tells whether `get_array` knows that name."""
        return name in self._tensors or name in self._filled or name in self._same

    def get_array(self, name: str) -> np.ndarray:
        """Returns a constant of the graph, which takes no memory where it fills a shape; else raises MalformedError."""
        turned = False
        while name in self._same:  # no circle: each is of a constant that stands before it
            name, again = self._same[name]
            turned ^= again
        if turned:
            return self.get_array(name).T
        if name in self._filled:
            shape, value = self._filled[name]
            sizes = tuple(self.get_array(shape).ravel()[:9].tolist())
            if min(sizes, default=0) < 1 or math.prod(sizes) >= 2**40 or len(sizes) > 8 or type(sizes[0]) is not int:
                raise MalformedError(f'a constant of {sizes}')
            return np.broadcast_to(value, sizes)
        if name not in self._tensors:
            raise MalformedError('a layer whose weights are computed rather than stored')
        return parse_tensor(self._tensors[name], folder=self._folder)


def parse_tensor(tensor: Any, *, folder: pathlib.Path | None = None) -> np.ndarray:
    """Returns the numbers of a TensorProto, floating-point or int64; those in a file beside it come from `folder`.

    Raises:
      MalformedError: it is of another type, or has not as many numbers as its shape says.
      InputError: the file beside it is missing, or too short.
    """
    if tensor.data_type not in _DTYPES:
        raise MalformedError(f'a tensor of data type {tensor.data_type}; float16, 32, 64 and int64 are read')
    dtype, shape = np.dtype(_DTYPES[tensor.data_type]), tuple(tensor.dims[:9])
    if tensor.data_location == EXTERNAL or tensor.HasField('raw_data'):
        raw = _map_external(tensor, folder) if tensor.data_location == EXTERNAL else tensor.raw_data
        if len(raw) % dtype.itemsize:
            raise MalformedError(f'{len(raw):,} bytes are no whole number of {dtype}')
        data = np.frombuffer(raw, dtype)
    else:
        fields = {FLOAT: tensor.float_data, INT64: tensor.int64_data}
        data = np.array(fields.get(tensor.data_type, tensor.double_data), dtype)
    if min(shape, default=1) < 1 or len(shape) > 8 or math.prod(shape) != data.size:
        raise MalformedError(f'a tensor of {shape} with {data.size:,} numbers')
    return data.reshape(shape)


def _map_external(tensor: Any, folder: pathlib.Path | None) -> memoryview:
    """Maps the bytes of a tensor that lie in another file: onnx/onnx docs/ExternalData.md."""
    about = {_decode(entry.key): _decode(entry.value) for entry in tensor.external_data}
    location = pathlib.PurePosixPath(about.get('location', ''))
    if folder is None or not location.name or location.is_absolute() or '..' in location.parts:
        raise MalformedError(f'its weights are in {str(location)[:60]!r}, which is no file beside it')
    path = folder / location
    if not path.is_file():
        raise InputError(
            f'{path} is missing: the ONNX file keeps its weights there, so put it beside it under that name, or write '
            'one file, torch.onnx.export(..., external_data=False)'
        )
    content = map_file(path)
    try:
        start = int(about.get('offset', 0))
        length = int(about.get('length', len(content) - start))
    except ValueError as error:
        raise MalformedError('it does not say in numbers where its weights lie') from error
    if start < 0 or length < 0 or start + length > len(content):
        raise InputError(
            f'{path} is too short: the ONNX file looks for bytes {start:,} to {start + length:,} in it, and it has '
            f'{len(content):,}; copy both files again'
        )
    return content[start : start + length]


def _load_own(model: Model, path: pathlib.Path) -> Network:
    network = parse_metadata(model.metadata, path=path)
    check_same_graph(network.variant, model.nodes, model.get_array)
    names = [f'{layer.name}/{part}' for layer in network.variant.layers for part in ('kernel', 'bias')]
    params = convert_to_channels_last(network.name, {name: model.get_array(name) for name in names}, source=path)
    mean, size = model.get_array(MEAN), network.variant.input_size
    if mean.shape != (1, 3, size, size) or mean.dtype != np.float32:
        raise MalformedError(f'its mean image is {mean.shape}')
    mean_image = np.ascontiguousarray(mean[0].transpose(1, 2, 0))
    return check_hashes(dataclasses.replace(network, params=params, mean_image=mean_image), model.metadata, path=path)


def _load_foreign(model: Model, path: pathlib.Path) -> Network:
    kinds = [node.op_type for node in model.nodes if node.op_type in ('Conv', 'Gemm')]
    if kinds.count('Conv') != 5:
        raise MalformedError(f'{len(kinds)} Conv and Gemm, not five and three')
    traced = trace_layers(model)
    layers = [layer for layer, _ in traced]
    kinds = [layer.kind for layer in layers]
    found = infer_variant(kinds) or torchvision.VARIANT
    check_layers(found, layers)
    weighted = [node for layer, node in traced if layer.kind in ('Conv', 'Gemm')]
    arrays = {}
    for layer, node in zip(LAYERS, weighted, strict=True):
        if len(node.input) != 3:
            raise MalformedError(f'{layer} has no bias')
        kernel = model.get_array(node.input[1])
        if node.op_type == 'Gemm' and not get_attribute(node, 'transB', (0.0,))[0]:
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


def _decode(text: str | bytes) -> str:
    """Returns text of a file; protobuf gives what is not UTF-8 as bytes."""
    return text if isinstance(text, str) else text.decode('utf-8', 'replace')
