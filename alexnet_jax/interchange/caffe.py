"""Caffe's two AlexNets: bvlc_alexnet and bvlc_reference_caffenet, read from .caffemodel.

Source: BVLC/caffe src/caffe/proto/caffe.proto, whose field numbers are below; models/*/train_val.prototxt for what the
networks are. Their weights have the same shapes; the order of normalising and pooling tells them apart.
"""

from __future__ import annotations

import pathlib

import numpy as np

from alexnet_jax import InputError
from alexnet_jax.interchange.caffe_blob import blob
from alexnet_jax.interchange.card import flat_mean
from alexnet_jax.interchange.files import mapped
from alexnet_jax.interchange.tree import LAYERS, Params, channels_last, named, numbered
from alexnet_jax.interchange.wire import Malformed, collect, integer, messages, text
from alexnet_jax.model.network import Network, NetworkName

# The AlexNets subtract data/ilsvrc12/imagenet_mean.binaryproto, which is not in their files; this is its colour, as in
# models/bvlc_googlenet/train_val.prototxt, mean_value 104, 117, 123 in the order BGR.
MEAN_RGB = (123.0, 117.0, 104.0)
BY_NAME = {'AlexNet': 'caffe_alexnet', 'CaffeNet': 'caffenet'}  # `name:` of the two train_val.prototxt

_NET_NAME, _NET_V1_LAYERS, _NET_LAYER = 1, 2, 100  # NetParameter name, layers, layer
_LAYER_TYPE, _LAYER_BLOBS = 2, 7  # LayerParameter
_V1_LAYER_TYPE, _V1_LAYER_BLOBS = 5, 6  # V1LayerParameter
_V1_TYPES = {4: 'Convolution', 14: 'InnerProduct', 15: 'LRN', 17: 'Pooling'}  # V1LayerParameter.LayerType


def is_caffe(message: memoryview) -> bool:
    """Whether a protocol buffer is a NetParameter with layers."""
    try:
        found = collect(message, _NET_V1_LAYERS, _NET_LAYER)
        return bool(messages(found[_NET_LAYER]) or messages(found[_NET_V1_LAYERS]))
    except Malformed:
        return False


def load(path: pathlib.Path, *, variant: str | None = None) -> Network:
    """The network of a .caffemodel, with its input channels turned from BGR to RGB.

    Args:
      path: the file.
      variant: 'caffe_alexnet' or 'caffenet'; None: what the file says.

    Raises:
      InputError: it is none, or damaged, or does not say which of the two it is.
    """
    try:
        net = collect(mapped(path), _NET_NAME, _NET_V1_LAYERS, _NET_LAYER)
        layers = [_layer(message, _LAYER_TYPE, _LAYER_BLOBS) for message in messages(net[_NET_LAYER])]
        layers += [_layer(message, _V1_LAYER_TYPE, _V1_LAYER_BLOBS) for message in messages(net[_NET_V1_LAYERS])]
        name = text(net[_NET_NAME])
        arrays = _arrays([blobs for _, blobs in layers if blobs])
    except Malformed as error:
        raise InputError(f'{path} is no .caffemodel of an AlexNet, or damaged: {error}') from error
    said = variant_of([kind for kind, _ in layers]) or BY_NAME.get(name)
    if variant not in (None, *BY_NAME.values()):
        raise InputError(f'{path} is a .caffemodel: it may be --variant={" or ".join(BY_NAME.values())}')
    if variant is None and said is None:
        raise InputError(
            f'{path} does not say which network it is: make it a file that does, python -m alexnet_jax.convert '
            f'--weights={path} --variant={" or ".join(BY_NAME.values())} --to=safetensors'
        )
    if variant and said and variant != said:
        raise InputError(f'{path} says that it is {said}, not --variant={variant}')
    found = named(variant or said or '', arrays)
    return foreign(found, channels_last(found, arrays, source=path), source=str(path))


def variant_of(kinds: list[str]) -> str | None:
    """Which of the two it is, by whether the first LRN comes before the first Pooling; None: one is not there."""
    if 'LRN' not in kinds or 'Pooling' not in kinds:
        return None
    return 'caffe_alexnet' if kinds.index('LRN') < kinds.index('Pooling') else 'caffenet'


def foreign(name: NetworkName, params: Params, *, source: str) -> Network:
    """A network that Caffe trained, on BGR: conv1 turned to RGB, Caffe's mean colour, the classes by number."""
    kernel = np.ascontiguousarray(params['conv1']['kernel'][:, :, ::-1])
    params = params | {'conv1': params['conv1'] | {'kernel': kernel}}
    mean_image = flat_mean(MEAN_RGB, name.build().input_size)
    classes = numbered(params['fc8']['bias'].size)
    return Network(name=name, params=params, mean_image=mean_image, classes=classes, source=source)


def _layer(message: memoryview, kind: int, blobs: int) -> tuple[str, list[np.ndarray]]:
    """A layer's type, by name, and its arrays."""
    found = collect(message, kind, blobs)
    numbered_type = bool(found[kind]) and isinstance(found[kind][-1], int)
    name = _V1_TYPES.get(integer(found[kind]), '') if numbered_type else text(found[kind])
    return name, [blob(view) for view in messages(found[blobs])]


def _arrays(blobs: list[list[np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays of the eight layers that have some, in their order: a network trained on has renamed its last ones.

    Before BlobShape every array had four axes: matrices (1, 1, out, in), biases (1, 1, 1, out).
    """
    if [len(arrays) for arrays in blobs] != [2] * len(LAYERS):
        raise Malformed(f'{len(blobs)} layers have weights, not {len(LAYERS)} with a kernel and a bias each')
    arrays = {}
    for layer, (kernel, bias) in zip(LAYERS, blobs, strict=True):
        axes = 4 if layer.startswith('conv') else 2
        arrays[f'{layer}/kernel'] = _trimmed(kernel, axes)
        arrays[f'{layer}/bias'] = _trimmed(bias, 1)
    return arrays


def _trimmed(array: np.ndarray, axes: int) -> np.ndarray:
    """Without leading axes of 1, down to so many axes."""
    while array.ndim > axes and array.shape[0] == 1:
        array = array[0]
    return array
