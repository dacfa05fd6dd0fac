"""Reads MatConvNet's AlexNets: imagenet-caffe-alex.mat, imagenet-caffe-ref.mat, and what its own examples train.

Source: vlfeat/matconvnet matlab/simplenn/vl_simplenn.m for the layers, vl_simplenn_tidy.m for their defaults and for
the names of before (`filters`, `biases`, `normalize`, `meta`'s fields at the top). Its axes are ours, (height, width,
in, out), and its images are RGB, 0..255.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from alexnet_jax.errors import InputError
from alexnet_jax.files import map_file
from alexnet_jax.model.network import Network, NetworkName
from alexnet_jax.weights.caffe import MEAN_RGB
from alexnet_jax.weights.layer_sequence import Layer, check_layers, infer_variant
from alexnet_jax.weights.layout import LAYERS, check_params, infer_name, unflatten
from alexnet_jax.weights.mat_file import read_mat
from alexnet_jax.weights.metadata import make_flat_mean, make_foreign_network
from alexnet_jax.weights.proto_messages import MalformedError
from alexnet_jax.weights.safetensors_file import SAVE_ARRAYS

_FC6_PLACES = (6, 6)  # that conv5's pooling leaves of a crop of 227: fc6 is a convolution over all of them
_LOSSES = ('softmax', 'softmaxloss', 'loss')
_Values = Mapping[str, Any]


def load_matconvnet(path: pathlib.Path) -> Network:
    """Loads the network of a .mat file, with its mean and, where it names them, its classes.

    Raises:
      InputError: it is damaged, or holds no SimpleNN network of Caffe's AlexNet or CaffeNet.
    """
    try:
        net = _find_net(read_mat(map_file(path)))
        layers, arrays = _list_layers(net['layers'])
        variant = infer_variant([layer.kind for layer in layers]) or 'caffe_alexnet'
        check_layers(variant, layers)
        name = infer_name(variant, arrays)
        params = check_params(name, unflatten(arrays), source=path)
        network = make_foreign_network(name, params, mean_rgb=MEAN_RGB, source=str(path))
        classes = _list_classes(net, len(network.classes)) or network.classes
        return dataclasses.replace(network, mean_image=_parse_mean(net, name), classes=classes)
    except MalformedError as error:
        raise InputError(
            f'{path} is no MatConvNet file of an AlexNet that is known here, or damaged: {error}. Read are its '
            "imagenet-caffe-alex and imagenet-caffe-ref, with any number of classes; write other programs' arrays with "
            f'{SAVE_ARRAYS}'
        ) from error


def _find_net(values: _Values) -> _Values:
    """Finds the struct with the layers: the file's own variables, or `net`, as training saves it."""
    for net in (values, values.get('net')):
        if isinstance(net, dict) and 'layers' in net:
            return net
    raise MalformedError(f'it has {", ".join(values)[:60] or "nothing"}, and no layers')


def _list_layers(listed: Any) -> tuple[list[Layer], dict[str, np.ndarray]]:
    """Lists a network's layers up to fc8, as ONNX says them, and their arrays by our names and axes."""
    found: list[Layer] = []
    arrays: dict[str, np.ndarray] = {}
    channels = 3
    for layer in listed if isinstance(listed, list) else [listed]:
        if not isinstance(layer, dict) or not isinstance(layer.get('type'), str) or 'block' in layer:
            raise MalformedError('its layers are not those of a SimpleNN network; DagNN is not read')
        kind = layer['type']
        title = layer['name'] if isinstance(layer.get('name'), str) else kind
        if kind == 'dropout' or (kind in _LOSSES and len(arrays) == 2 * len(LAYERS)):
            continue
        if kind == 'conv':
            place = len(arrays) // 2
            if place == len(LAYERS):
                raise MalformedError(f'it has {title[:60]} besides the eight layers with weights')
            kernel, bias = _get_weights(layer, title)
            dense, inputs, outputs = LAYERS[place].startswith('fc'), *kernel.shape[2:]
            if dense:
                kernel = _flatten_kernel(kernel, layer, title, places=_FC6_PLACES if LAYERS[place] == 'fc6' else (1, 1))
                found += [Layer('Flatten', title, {})] * (LAYERS[place] == 'fc6')
            arrays |= {f'{LAYERS[place]}/kernel': kernel, f'{LAYERS[place]}/bias': bias}
            attributes = {} if dense else _get_window(layer) | {'group': (channels / inputs,)}
            found.append(Layer('Gemm' if dense else 'Conv', title, attributes))
            channels = outputs
        elif kind == 'pool' and layer.get('method', 'max') == 'max':
            found.append(Layer('MaxPool', title, _get_window(layer) | {'kernel_shape': _numbers(layer, 'pool', 2)}))
        elif kind in ('normalize', 'lrn'):
            # Its alpha multiplies the plain sum, as the paper's does; ONNX divides it by the size.
            size, k, alpha, beta = _numbers(layer, 'param', 4, (5, 1, 1e-4 / 5, 0.75))
            found.append(
                Layer('LRN', title, {'size': (size,), 'alpha': (alpha * size,), 'beta': (beta,), 'bias': (k,)})
            )
        elif kind == 'relu' and not any(_numbers(layer, 'leak', 1, (0,))):
            found.append(Layer('Relu', title, {}))
        else:
            raise MalformedError(
                f'its layer {title[:60]} is {kind[:40]}, which is none that is known there in an AlexNet'
            )
    return found, arrays


def _get_weights(layer: _Values, title: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns a layer's kernel (height, width, in, out), of which MATLAB drops last axes of 1, and its bias (out,)."""
    pair = layer.get('weights', [layer.get('filters'), layer.get('biases')])
    if not isinstance(pair, list) or len(pair) < 2 or not all(isinstance(x, np.ndarray) and x.size for x in pair[:2]):
        raise MalformedError(f'its layer {title[:60]} has no kernel and bias')
    kernel, bias = pair[:2]
    kernel = kernel.reshape(kernel.shape + (1,) * (4 - kernel.ndim))
    if kernel.ndim != 4 or bias.size != kernel.shape[3]:
        raise MalformedError(f'its layer {title[:60]} has a kernel of {kernel.shape} and a bias of {bias.shape}')
    return kernel, bias.ravel()


def _flatten_kernel(kernel: np.ndarray, layer: _Values, title: str, *, places: tuple[int, int]) -> np.ndarray:
    """Flattens the kernel of a convolution over all places to (row, column, channel) x out: a dense layer's here."""
    window = _get_window(layer)
    if kernel.shape[:2] != places or window != _get_window({}):
        raise MalformedError(f'its layer {title[:60]} is no dense layer over {places[0]}x{places[1]} places')
    return kernel.reshape(-1, kernel.shape[3])


def _get_window(layer: _Values) -> dict[str, tuple[float, ...]]:
    """Returns how a window moves, as ONNX says it; MatConvNet's padding is (top, bottom, left, right)."""
    top, bottom, left, right = _numbers(layer, 'pad', 4, (0,))
    window = {'strides': _numbers(layer, 'stride', 2, (1,)), 'pads': (top, left, bottom, right)}
    return window | {'dilations': _numbers(layer, 'dilate', 2, (1,))}


def _numbers(layer: _Values, field: str, count: int, default: tuple[float, ...] = (0,)) -> tuple[float, ...]:
    """Returns a field's `count` numbers, of which one may stand for all."""
    value = layer.get(field)
    if value is not None and not isinstance(value, np.ndarray):
        raise MalformedError(f'a layer whose {field} is not a number')
    given = tuple(map(float, default if value is None or not value.size else value.ravel()))
    if len(given) not in (1, count):
        raise MalformedError(f'a layer whose {field} has {len(given)} numbers, not {count}')
    return given if len(given) == count else given * count


def _get_meta(net: _Values, group: str) -> _Values:
    """Returns a group of what is known of a network; {} where the file has none."""
    meta = net.get('meta')
    found = (meta if isinstance(meta, dict) else net).get(group)
    return found if isinstance(found, dict) else {}


def _parse_mean(net: _Values, name: NetworkName) -> np.ndarray:
    """Returns the mean image, float32 (size, size, 3); Caffe's colour where the file has none."""
    value = _get_meta(net, 'normalization').get('averageImage')
    size = name.build().input_size
    if not isinstance(value, np.ndarray) or not value.size:
        return make_flat_mean(MEAN_RGB, size)
    if (value < 0).any() or not (value <= 255).all():  # NaN is no pixel either
        raise MalformedError('its averageImage has values that are no pixels, 0..255')
    mean = make_flat_mean(value.ravel().tolist(), size) if value.size == 3 else np.ascontiguousarray(value, np.float32)
    if not name.takes_mean(mean):
        raise MalformedError(f'its averageImage is {value.shape}, not {size}x{size}x3')
    return mean


def _list_classes(net: _Values, outputs: int) -> tuple[str, ...]:
    """Returns what the outputs are called, 'n01440764 tench, Tinca tinca'; () where the file does not say."""
    classes = _get_meta(net, 'classes')
    named = [classes.get(key) for key in ('name', 'description')]
    columns = [texts for texts in named if isinstance(texts, list) and len(texts) == outputs]
    if not all(isinstance(text, str) for texts in columns for text in texts):
        return ()
    return tuple(' '.join(dict.fromkeys(row)) for row in zip(*columns, strict=True))
