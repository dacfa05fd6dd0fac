"""Parameter trees of files: flat names, shapes checked against the network that they are said to be."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import numpy as np

from alexnet_jax import InputError
from alexnet_jax.model.alexnet import parameter_shapes
from alexnet_jax.model.network import NetworkName
from alexnet_jax.model.variants import VARIANTS

Params = dict[str, dict[str, np.ndarray]]
LAYERS = ('conv1', 'conv2', 'conv3', 'conv4', 'conv5', 'fc6', 'fc7', 'fc8')  # of every variant, in order
MAX_WIDTH = 8.0  # of a network in a file; a wider one is a mistake, or would have its shapes computed for nothing


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
    for path, array in flat(params).items():
        if not np.isfinite(array).all():
            raise InputError(f'{source} is damaged or did not train: {path} holds values that are no numbers')
    return jax.tree.map(lambda array: np.ascontiguousarray(array, np.float32), params)


def recognised(variant: str, params: Params, *, source: object) -> NetworkName:
    """The network of that variant which has the shapes of `params`: a width is seen in conv3's channels.

    Raises:
      InputError: none has.
    """
    kernel = params.get('conv3', {}).get('kernel')
    channels = 0 if kernel is None or not kernel.ndim else kernel.shape[-1]
    full = next(conv.features for conv in VARIANTS[variant].convs if conv.name == 'conv3')
    width = channels / full
    name = NetworkName(variant, width if 0 < width <= MAX_WIDTH else 1.0)
    wrong = _difference(name, params)
    if wrong:
        raise InputError(f'{source} does not hold the weights of {described(name)}: {wrong}')
    return name


def described(name: NetworkName) -> str:
    """A network's name for people: 'released', 'released, width 0.25, without norm'."""
    width = '' if name.width == 1 else f', width {name.width:g}'
    without = f', without {" and ".join(name.without)}' if name.without else ''
    return f'{name.variant}{width}{without}'


def numbered(outputs: int) -> tuple[str, ...]:
    """Names of classes of which only the number is known: '0', '1', ..."""
    return tuple(str(index) for index in range(outputs))


def _difference(name: NetworkName, params: Params) -> str:
    """How the shapes of `params` differ from the network's, in a few words; '' where they do not."""
    found = {path: array.shape for path, array in flat(params).items()}
    outputs = found.get('fc8/bias', ())
    if len(outputs) != 1 or outputs[0] < 1:
        return 'it has no fc8/bias, one number for each class'
    wanted = parameter_shapes(name.build(), num_classes=outputs[0])
    shapes = {f'{layer}/{part}': leaf.shape for layer, parts in wanted.items() for part, leaf in parts.items()}
    for path in sorted(shapes | found):
        if path not in found:
            return f'{path} is missing'
        if path not in shapes:
            return f'it has {path} besides'
        if found[path] != shapes[path]:
            return f'{path} is {found[path]}, not {shapes[path]}'
    return ''
