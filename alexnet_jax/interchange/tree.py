"""Parameter trees of files: flat names, shapes checked, and the two orders in which axes are kept.

This project keeps channels last: kernels (height, width, in, out), and fc6 reads (row, column, channel). PyTorch, Caffe
and ONNX keep them first: kernels (out, in, height, width), matrices (out, in), and their fc6 reads (channel, row,
column).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import jax
import numpy as np

from alexnet_jax import InputError
from alexnet_jax.model.alexnet import parameter_shapes
from alexnet_jax.model.catalogue import VARIANTS
from alexnet_jax.model.network import NetworkName
from alexnet_jax.model.variants import layer_sizes

Params = dict[str, dict[str, np.ndarray]]
LAYERS = ('conv1', 'conv2', 'conv3', 'conv4', 'conv5', 'fc6', 'fc7', 'fc8')  # of every AlexNet, in order
MAX_WIDTH = 8.0  # of a network in a file; a wider one is a mistake


def flat(params: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """{'conv1/kernel': array} of {'conv1': {'kernel': array}}."""
    return {f'{layer}/{part}': array for layer, parts in params.items() for part, array in parts.items()}


def nested(arrays: Mapping[str, np.ndarray]) -> Params:
    """The inverse of `flat`."""
    tree: Params = {}
    for name, array in arrays.items():
        layer, _, part = name.partition('/')
        tree.setdefault(layer, {})[part] = array
    return tree


def checked(name: NetworkName, params: Params, *, source: object) -> Params:
    """`params` as contiguous float32, if they are the parameters of that network.

    Args:
      name: the network.
      params: real numbers of any floating type; wider ones are rounded to float32.
      source: where they come from, for the message.

    Raises:
      InputError: a layer is missing, too many, of another shape, or holds infinities or NaN.
    """
    wrong = _difference(name, params)
    if wrong:
        raise InputError(f'{source} does not hold the weights of {described(name)}: {wrong}')
    with np.errstate(over='ignore'):  # what is too large for float32 is found below
        rounded = jax.tree.map(lambda array: np.ascontiguousarray(array, np.float32), params)
    for path, array in flat(rounded).items():
        if not np.isfinite(array).all():
            raise InputError(f'{source} is damaged or did not train: {path} holds values that are no numbers')
    return rounded


def named(variant: str, arrays: Mapping[str, np.ndarray]) -> NetworkName:
    """The network of that variant whose fc7 has as many units as these arrays': any width up to MAX_WIDTH."""
    full = next(layer.features for layer in VARIANTS[variant].dense if layer.name == 'fc7')
    width = arrays['fc7/bias'].size / full if 'fc7/bias' in arrays else 1.0  # what is missing is told by `checked`
    return NetworkName(variant, width if 0 < width <= MAX_WIDTH else 1.0)


def channels_first(name: NetworkName, params: Params) -> dict[str, np.ndarray]:
    """Parameters by flat name with their axes in the order of PyTorch, Caffe and ONNX, contiguous."""
    arrays = flat(params)
    rows, columns, channels = _first_dense_reads(name)
    first = f'{name.build().dense[0].name}/kernel'
    kernel = arrays[first].reshape(rows, columns, channels, -1)
    arrays[first] = kernel.transpose(2, 0, 1, 3).reshape(-1, kernel.shape[-1])
    axes = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}
    return {path: np.ascontiguousarray(array.transpose(axes[array.ndim])) for path, array in arrays.items()}


def channels_last(name: NetworkName, arrays: Mapping[str, np.ndarray], *, source: object) -> Params:
    """The inverse of `channels_first`, checked.

    Raises:
      InputError: as `checked` does.
    """
    axes = {4: (2, 3, 1, 0), 2: (1, 0)}
    turned = {path: array.transpose(axes.get(array.ndim)) for path, array in arrays.items()}
    params = checked(name, nested(turned), source=source)
    rows, columns, channels = _first_dense_reads(name)
    first = params[name.build().dense[0].name]
    kernel = first['kernel'].reshape(channels, rows, columns, -1)
    first['kernel'] = kernel.transpose(1, 2, 0, 3).reshape(-1, kernel.shape[-1])
    return params


def described(name: NetworkName) -> str:
    """A network's name for people: 'released', 'released, width 0.25, without norm'."""
    width = '' if name.width == 1 else f', width {name.width:g}'
    without = f', without {" and ".join(name.without)}' if name.without else ''
    return f'{name.variant}{width}{without}'


def numbered(outputs: int) -> tuple[str, ...]:
    """Names of classes of which only the number is known: '0', '1', ..."""
    return tuple(str(index) for index in range(outputs))


def _first_dense_reads(name: NetworkName) -> tuple[int, int, int]:
    """(rows, columns, channels) that a unit of the first fully connected layer reads: of both towers, or of its own."""
    variant = name.build()
    rows, columns, channels = layer_sizes(variant, num_classes=1)[len(variant.convs) - 1].output
    return rows, columns, channels // (variant.towers if variant.dense[0].reads == 'tower' else 1)


@functools.lru_cache(maxsize=64)
def _shapes(name: NetworkName, outputs: int) -> dict[str, tuple[int, ...]]:
    wanted = parameter_shapes(name.build(), num_classes=outputs)
    return {f'{layer}/{part}': leaf.shape for layer, parts in wanted.items() for part, leaf in parts.items()}


def _difference(name: NetworkName, params: Params) -> str:
    """How the shapes of `params` differ from the network's, in a few words; '' where they do not."""
    found = {path: array.shape for path, array in flat(params).items()}
    outputs = found.get('fc8/bias', ())
    if len(outputs) != 1 or outputs[0] < 1:
        return 'it has no fc8/bias, one number for each class'
    if found.get('fc8/kernel', ())[1:] != outputs:  # also: no shapes are computed for a size that no file backs
        return f'fc8/kernel is {found.get("fc8/kernel")}, not (units, {outputs[0]})'
    shapes = _shapes(name, outputs[0])
    for path in sorted(shapes | found):
        if path not in found:
            return f'{path} is missing'
        if path not in shapes:
            return f'it has {path[:40]} besides'
        if found[path] != shapes[path]:
            return f'{path} is {found[path]}, not {shapes[path]}'
    return ''
