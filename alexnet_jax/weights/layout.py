"""Parameter trees of files: flat names, shapes checked, and the two orders in which axes are kept.

This project keeps channels last: kernels (height, width, in, out), and fc6 reads (row, column, channel). PyTorch, Caffe
and ONNX keep them first: kernels (out, in, height, width), matrices (out, in), and their fc6 reads (channel, row,
column).
"""

import functools
from collections.abc import Mapping

import jax
import numpy as np

from alexnet_jax.errors import InputError
from alexnet_jax.model.alexnet import get_parameter_shapes
from alexnet_jax.model.network import NetworkName
from alexnet_jax.model.spec import get_layer_sizes
from alexnet_jax.model.zoo import VARIANTS

Params = dict[str, dict[str, np.ndarray]]
LAYERS = ('conv1', 'conv2', 'conv3', 'conv4', 'conv5', 'fc6', 'fc7', 'fc8')  # of every AlexNet, in order
MAX_WIDTH = 8.0  # of a network in a file; a wider one is a mistake


def flatten(params: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Flattens {'conv1': {'kernel': array}} to {'conv1/kernel': array}."""
    return {f'{layer}/{part}': array for layer, parts in params.items() for part, array in parts.items()}


def unflatten(arrays: Mapping[str, np.ndarray]) -> Params:
    """Inverts `flatten`."""
    tree: Params = {}
    for name, array in arrays.items():
        layer, _, part = name.partition('/')
        tree.setdefault(layer, {})[part] = array
    return tree


def check_params(name: NetworkName, params: Params, *, source: object) -> Params:
    """Returns `params`, of any floating type, as contiguous float32, if they are the parameters of that network.

    Raises:
      InputError: a layer is missing, too many, of another shape, or holds infinities or NaN.
    """
    if difference := _describe_difference(name, params):
        raise InputError(
            f'{source} does not hold the weights of {format_name(name)}: {difference}; give a file of that network'
        )
    with np.errstate(over='ignore'):  # what is too large for float32 is found below
        rounded = jax.tree.map(lambda array: np.ascontiguousarray(array, np.float32), params)
    for path, array in flatten(rounded).items():
        if not np.isfinite(array).all():
            raise InputError(f'{source} is damaged or did not train: {path} holds non-finite values')
    return rounded


def infer_name(variant: str, arrays: Mapping[str, np.ndarray]) -> NetworkName:
    """Infers which width of that variant the arrays are of from fc7's units: any up to MAX_WIDTH, else 1."""
    full = next(layer.features for layer in VARIANTS[variant].dense if layer.name == 'fc7')
    width = arrays['fc7/bias'].size / full if 'fc7/bias' in arrays else 1.0  # `check_params` says what is missing
    return NetworkName(variant, width if 0 < width <= MAX_WIDTH else 1.0)


def convert_to_channels_first(name: NetworkName, params: Params) -> dict[str, np.ndarray]:
    """Converts parameters to flat names and the axes of PyTorch, Caffe and ONNX, contiguous."""
    arrays = flatten(params)
    first, (rows, columns, channels) = _get_first_dense_layer(name)
    kernel = arrays[f'{first}/kernel'].reshape(rows, columns, channels, -1)
    arrays[f'{first}/kernel'] = kernel.transpose(2, 0, 1, 3).reshape(-1, kernel.shape[-1])
    axes = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}
    return {path: np.ascontiguousarray(array.transpose(axes[array.ndim])) for path, array in arrays.items()}


def convert_to_channels_last(name: NetworkName, arrays: Mapping[str, np.ndarray], *, source: object) -> Params:
    """Inverts `convert_to_channels_first`, and checks; raises InputError as `check_params` does."""
    axes = {4: (2, 3, 1, 0), 2: (1, 0)}
    transposed = {path: array.transpose(axes.get(array.ndim)) for path, array in arrays.items()}
    params = check_params(name, unflatten(transposed), source=source)
    first, (rows, columns, channels) = _get_first_dense_layer(name)
    kernel = params[first]['kernel'].reshape(channels, rows, columns, -1)
    params[first]['kernel'] = kernel.transpose(1, 2, 0, 3).reshape(-1, kernel.shape[-1])
    return params


def format_name(name: NetworkName) -> str:
    """Formats a network's name for people: 'released', 'released, width 0.25, without norm, sigmoid units'."""
    width = '' if name.width == 1 else f', width {name.width:g}'
    without = f', without {" and ".join(name.without)}' if name.without else ''
    units = f', {name.activation} units' if name.activation else ''
    return f'{name.variant}{width}{without}{units}'


def _get_first_dense_layer(name: NetworkName) -> tuple[str, tuple[int, int, int]]:
    """Returns the first dense layer's name and (rows, columns, channels) that a unit of it reads."""
    variant = name.build()
    layer, sizes = variant.dense[0], get_layer_sizes(variant, num_classes=1)
    rows, columns, channels = sizes[len(variant.convs) - 1].output
    return layer.name, (rows, columns, channels // (variant.towers if layer.reads == 'tower' else 1))


@functools.lru_cache(maxsize=64)
def _get_shapes(name: NetworkName, outputs: int) -> dict[str, tuple[int, ...]]:
    shapes = get_parameter_shapes(name.build(), num_classes=outputs)
    return {path: leaf.shape for path, leaf in flatten(shapes).items()}


def _describe_difference(name: NetworkName, params: Params) -> str:
    """Describes in a few words how the shapes of `params` differ from the network's; '' where they do not."""
    found = {path: array.shape for path, array in flatten(params).items()}
    outputs = found.get('fc8/bias', ())
    if len(outputs) != 1 or outputs[0] < 1:
        return 'it has no fc8/bias, one number for each class'
    if found.get('fc8/kernel', ())[1:] != outputs:  # also: no shapes are computed for a size that no file backs
        return f'fc8/kernel is {found.get("fc8/kernel")}, not (units, {outputs[0]})'
    shapes = _get_shapes(name, outputs[0])
    for path in sorted(shapes | found):
        if path not in found:
            return f'{path} is missing'
        if path not in shapes:
            return f'it has {path[:40]} besides'
        if found[path] != shapes[path]:
            return f'{path} is {found[path]}, not {shapes[path]}'
    return ''
