"""Reads ONNX: the graphs that this project writes, Caffe's AlexNets and torchvision's.

Of a foreign graph the layers are found by following it, Conv and Gemm in their order, and every constant of theirs is
compared with the network's: strides, padding, groups, windows, the formula of LRN. Weights that fit another network
than the graph's would give plausible, wrong numbers.
"""

from __future__ import annotations

import pathlib

import numpy as np

from alexnet_jax.errors import InputError
from alexnet_jax.files import map_file
from alexnet_jax.model.network import Network
from alexnet_jax.model.spec import ChannelNorm, Conv, MaxPool, Variant
from alexnet_jax.model.zoo import VARIANTS
from alexnet_jax.weights import caffe, onnx_format, torchvision
from alexnet_jax.weights import metadata as cards
from alexnet_jax.weights.layout import LAYERS, channels_last, infer_name
from alexnet_jax.weights.onnx_format import Model, Node
from alexnet_jax.weights.onnx_write import MEAN
from alexnet_jax.weights.wire import Malformed, collect, integer, messages

# Of attributes that a graph may leave out: onnx/onnx docs/Operators.md.
_DEFAULTS: dict[str, dict[str, float]] = {
    'Conv': {'group': 1},
    'LRN': {'alpha': 1e-4, 'beta': 0.75, 'bias': 1},
    'Gemm': {'alpha': 1, 'beta': 1},
}
_ONES, _ZEROS = (1, 1), (0, 0, 0, 0)


def is_onnx(message: memoryview) -> bool:
    """Whether a protocol buffer is a ModelProto: an ir_version and a graph."""
    try:
        found = collect(message, 1, 7)
        return integer(found[1]) > 0 and len(messages(found[7])) == 1
    except Malformed:
        return False


def load_onnx(path: pathlib.Path) -> Network:
    """The network of an ONNX file.

    Raises:
      InputError: it is damaged, or the graph of a network that is not known here.
    """
    try:
        model = onnx_format.read(map_file(path))
        return _own(model, path) if cards.KEY in model.metadata else _foreign(model, path)
    except Malformed as error:
        raise InputError(f'{path} is no ONNX graph of an AlexNet, or damaged: {error}') from error


def _own(model: Model, path: pathlib.Path) -> Network:
    card = cards.parse_metadata(model.metadata, path=path)
    names = [f'{layer.name}/{part}' for layer in card.name.build().layers for part in ('kernel', 'bias')]
    arrays = {name: model.array(name) for name in names}
    params = channels_last(card.name, arrays, source=path)
    mean, size = model.array(MEAN), card.name.build().input_size
    if mean.shape != (1, 3, size, size) or mean.dtype != np.float32:
        raise Malformed(f'its mean image is {mean.shape}')
    return cards.make_network(card, params, np.ascontiguousarray(mean[0].transpose(1, 2, 0)), path=path)


def _foreign(model: Model, path: pathlib.Path) -> Network:
    nodes = [node for node in model.nodes if node.kind in ('Conv', 'Gemm', 'LRN', 'MaxPool')]
    layers = [node for node in nodes if node.kind in ('Conv', 'Gemm')]
    if [node.kind for node in layers] != ['Conv'] * 5 + ['Gemm'] * 3:
        raise Malformed(f'{len(layers)} Conv and Gemm, not five and three')
    if layers[0].inputs[:1] != model.inputs[:1]:
        raise Malformed('its first Conv does not read its input')
    kinds = ['Pooling' if node.kind == 'MaxPool' else node.kind for node in nodes]
    found = caffe.infer_variant(kinds) or torchvision.VARIANT
    _compare(VARIANTS[found], nodes)
    arrays = {}
    for layer, node in zip(LAYERS, layers, strict=True):
        if len(node.inputs) != 3:
            raise Malformed(f'{layer} has no bias')
        kernel = model.array(node.inputs[1])
        if node.kind == 'Gemm' and not node.number('transB', 0):
            kernel = kernel.T
        arrays[f'{layer}/kernel'], arrays[f'{layer}/bias'] = kernel, model.array(node.inputs[2])
    name = infer_name(found, arrays)
    params = channels_last(name, arrays, source=path)
    source, size = str(path), name.build().input_size
    if model.sizes[2:] not in ((), (size, size)):
        # The ONNX zoo's bvlc_alexnet is one: it declares 224, which Caffe2 made of it, and Caffe trained it on 227.
        source += f' (a graph for crops of {"x".join(map(str, model.sizes[2:]))}; its weights were trained on {size})'
    make_network = torchvision.make_torchvision_network if found == torchvision.VARIANT else caffe.make_caffe_network
    return make_network(name, params, source=source)


def _compare(variant: Variant, nodes: list[Node]) -> None:
    """Raises Malformed where the graph's operators are not the network's, in their order."""
    expected: list[tuple[str, dict[str, object]]] = []
    for conv in variant.convs:
        expected.append(('Conv', _conv(conv, variant)))
        for operation in conv.then:
            match operation:
                case MaxPool(window, stride):
                    expected.append(('MaxPool', _pool(window, stride)))
                case ChannelNorm(size, k, alpha, beta):
                    expected.append(('LRN', {'size': size, 'alpha': alpha * size, 'beta': beta, 'bias': k}))
    expected += [('Gemm', {'alpha': 1.0, 'beta': 1.0, 'transA': 0})] * len(variant.dense)
    if [kind for kind, _ in expected] != [node.kind for node in nodes]:
        raise Malformed(f'its layers are not those of {variant.name}')
    for node, (kind, attributes) in zip(nodes, expected, strict=True):
        defaults = _DEFAULTS.get(kind, {})
        for name, wanted in attributes.items():
            if isinstance(wanted, tuple | frozenset):
                found: object = node.numbers(name, _ONES if name in ('strides', 'dilations') else _ZEROS)
                same = found in wanted if isinstance(wanted, frozenset) else found == wanted
            else:
                number, target = node.number(name, defaults.get(name, 0.0)), float(str(wanted))
                found, same = number, abs(number - target) <= 1e-6 * abs(target)  # the file's are float32
            if not same:
                raise Malformed(f'{kind} {node.outputs[0][:40]} has {name} {found}, and {variant.name} {wanted}')


def _pool(window: int, stride: int) -> dict[str, object]:
    # Caffe2's converter pads the end where Caffe rounds sizes up; of crops of 227 there is nothing to round.
    ends = frozenset([(0, 0, 0, 0), (0, 0, 1, 1)])
    return {'kernel_shape': (window,) * 2, 'strides': (stride,) * 2, 'pads': ends}


def _conv(conv: Conv, variant: Variant) -> dict[str, object]:
    (top, bottom), (left, right) = conv.padding
    return {
        'strides': (conv.stride, conv.stride),
        'pads': (top, left, bottom, right),
        'dilations': (1, 1),
        'group': variant.towers if conv.reads == 'tower' else 1,
    }
