"""The layers in a Keras model's config, in the terms in which they are compared with a network's.

Source: keras-team/keras keras/src/layers, `get_config` of each; Keras 2 has the same keys, and other `inbound_nodes`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from alexnet_jax.weights.layer_sequence import Layer
from alexnet_jax.weights.proto_messages import MalformedError

_MODELS = ('Sequential', 'Functional', 'Model')
_SKIPPED = ('InputLayer', 'Dropout')
_NO_PADS = (0.0, 0.0, 0.0, 0.0)


def list_layers(config: Mapping[str, Any]) -> list[Layer]:
    """Lists the layers of a model that is one chain, models in it included, up to fc8.

    Passed over is what changes no number of a trained network: Dropout, and behind fc8 softmax.

    Raises:
      MalformedError: it is no such chain, or has a layer that is not known; it is named.
    """
    try:
        found = [layer for one in _iter_chain(config) for layer in _list_parts(one)]
    except MalformedError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise MalformedError(f'its config is none of Keras ({type(error).__name__})') from error
    if found and found[-1].kind == 'softmax':
        found.pop()
    return _pad_next(found)


def _iter_chain(model: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if model['class_name'] not in _MODELS:
        raise MalformedError(f'it is of the class {str(model["class_name"])[:40]}, and its layers are not in the file')
    before = ''
    for layer in model['config']['layers']:
        reads = set(_iter_inputs(layer.get('inbound_nodes') or []))
        if reads - {before}:
            raise MalformedError(f'its layer {str(layer["name"])[:60]} does not read what the one before it gives')
        before = layer.get('name') or layer['config'].get('name')
        if layer['class_name'] in _MODELS:
            yield from _iter_chain(layer)
        else:
            yield layer


def _iter_inputs(nodes: Any) -> Iterator[str]:
    """Iterates over the names of the layers that one reads: Keras 3's keras_history, or Keras 2's [name, 0, 0, {}]."""
    if isinstance(nodes, dict):
        if 'keras_history' in nodes:
            yield nodes['keras_history'][0]
        else:
            for value in nodes.values():
                yield from _iter_inputs(value)
    elif isinstance(nodes, list):
        if len(nodes) > 2 and isinstance(nodes[0], str):
            yield nodes[0]
        else:
            for value in nodes:
                yield from _iter_inputs(value)


def _list_parts(layer: Mapping[str, Any]) -> list[Layer]:
    """Lists what a layer does: a convolution may have its activation within it."""
    kind, config = layer['class_name'], layer['config']
    title = str(config.get('name', kind))
    if kind in _SKIPPED:
        return []
    if config.get('data_format', 'channels_last') != 'channels_last':
        raise MalformedError(f'its layer {title[:60]} keeps channels first: convert the model to channels_last')
    match kind:
        case 'ZeroPadding2D':
            (top, bottom), (left, right) = config['padding']
            return [Layer(kind, title, {'pads': (float(top), float(left), float(bottom), float(right))})]
        case 'MaxPooling2D':
            sizes = _get_pair(config['pool_size'])
            strides = sizes if config['strides'] is None else _get_pair(config['strides'])
            pads = _get_pads(title, config['padding'], sizes, strides)
            return [Layer('MaxPool', title, {'kernel_shape': sizes, 'strides': strides, 'pads': pads})]
        case 'Flatten':
            return [Layer('Flatten', title, {})]
        case 'Activation':
            return _list_activation(title, config['activation'])
        case 'ReLU' if config.get('max_value') is None and not (
            config.get('negative_slope') or config.get('threshold')
        ):
            return [Layer('Relu', title, {})]
        case 'Softmax':
            return [Layer('softmax', title, {})]
        case 'Dense':
            return [Layer('Gemm', title, {}), *_list_activation(title, config['activation'])]
        case 'Conv2D':
            sizes, strides = _get_pair(config['kernel_size']), _get_pair(config['strides'])
            attributes = {
                'strides': strides,
                'pads': _get_pads(title, config['padding'], sizes, strides),
                'dilations': _get_pair(config['dilation_rate']),
                'group': (float(config.get('groups', 1)),),
            }
            return [Layer('Conv', title, attributes), *_list_activation(title, config['activation'])]
    raise MalformedError(
        f'its layer {title[:60]} is {str(kind)[:40]}, which is none that is known here: where that is an LRN, give the '
        "weights alone, model.save_weights('FILE.weights.h5'), and --variant"
    )


def _list_activation(title: str, activation: Any) -> list[Layer]:
    if activation in (None, 'linear'):
        return []
    return [Layer('Relu' if activation == 'relu' else str(activation)[:40], title, {})]


def _get_pads(
    title: str, padding: str, sizes: tuple[float, float], strides: tuple[float, float]
) -> tuple[float, float, float, float]:
    if padding == 'valid':
        return _NO_PADS
    if padding != 'same' or strides != (1, 1) or not all(size % 2 for size in sizes):
        raise MalformedError(
            f'its layer {title[:60]} pads by {str(padding)[:20]!r}, which depends on the size of images'
        )
    rows, columns = ((size - 1) / 2 for size in sizes)
    return rows, columns, rows, columns


def _get_pair(value: Any) -> tuple[float, float]:
    rows, columns = value if isinstance(value, list) else (value, value)
    return float(rows), float(columns)


def _pad_next(layers: list[Layer]) -> list[Layer]:
    """Gives the convolution behind a ZeroPadding2D its pads."""
    found: list[Layer] = []
    for layer in layers:
        if found and found[-1].kind == 'ZeroPadding2D' and layer.kind == 'Conv':
            pads = zip(found.pop().attributes['pads'], layer.attributes['pads'], strict=True)
            layer = layer._replace(attributes={**layer.attributes, 'pads': tuple(map(sum, pads))})
        found.append(layer)
    return found
