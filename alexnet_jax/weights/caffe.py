"""Reads Caffe's files: bvlc_alexnet and bvlc_reference_caffenet as .caffemodel, and mean images as .binaryproto.

Source: BVLC/caffe src/caffe/proto/caffe.proto, with field numbers in caffe_layers.py; models/*/train_val.prototxt for
what the networks are. Their weights have the same shapes; the order of normalising and pooling tells them apart.
"""

import math
import pathlib
import re
from typing import Any

import numpy as np

from alexnet_jax.data.augment import centre_crop
from alexnet_jax.errors import InputError
from alexnet_jax.files import map_file
from alexnet_jax.model.network import Network, NetworkName
from alexnet_jax.model.spec import Variant
from alexnet_jax.weights.caffe_layers import CAFFE, list_layers
from alexnet_jax.weights.layer_sequence import check_layers, infer_variant
from alexnet_jax.weights.layout import LAYERS, Params, convert_to_channels_last, infer_name
from alexnet_jax.weights.metadata import make_flat_mean, make_foreign_network
from alexnet_jax.weights.proto_messages import (
    BYTES,
    MalformedError,
    list_outer_fields,
    parse_message,
)

# The AlexNets subtract data/ilsvrc12/imagenet_mean.binaryproto, which is not in their files; this is its colour, as in
# models/bvlc_googlenet/train_val.prototxt, mean_value 104, 117, 123 in the order BGR.
MEAN_RGB = (123.0, 117.0, 104.0)
BY_NAME = {'AlexNet': 'caffe_alexnet', 'CaffeNet': 'caffenet'}  # `name:` of the two train_val.prototxt


def is_caffe(content: memoryview) -> bool:
    """Tells whether a file is a NetParameter with layers, by its outermost fields."""
    return not {(2, BYTES), (100, BYTES)}.isdisjoint(list_outer_fields(content))


def load_caffe(path: pathlib.Path, *, variant: str | None = None) -> Network:
    """Loads the network of a .caffemodel, with its input channels turned from BGR to RGB.

    Raises:
      InputError: it is none, or damaged, or does not say which of the two it is, where `variant` does not either.
    """
    try:
        net = parse_message(CAFFE.NetParameter, map_file(path))
        listed = [*net.layers, *net.layer]
        layers = list_layers(listed)
        whole = any(layer.kind not in ('Conv', 'Flatten', 'Gemm') for layer in layers)  # not only those with weights
        stated = infer_variant([layer.kind for layer in layers]) or BY_NAME.get(net.name)
        if whole:
            # One that lacks LRN or pooling is compared too, to name what it lacks.
            check_layers(stated or 'caffe_alexnet', layers)
        arrays = _name_arrays([[_get_array(blob) for blob in layer.blobs] for layer in listed if layer.blobs])
    except MalformedError as error:
        raise InputError(
            f'{path} is no .caffemodel of an AlexNet that is known here, or damaged: {error}. Read are bvlc_alexnet '
            'and bvlc_reference_caffenet, with any number of classes'
        ) from error
    del net, listed  # its arrays have been copied
    one, other = BY_NAME.values()
    if variant not in (None, *BY_NAME.values()):
        raise InputError(f'{path} is a .caffemodel: it may be --variant={one} or {other}')
    if variant and stated and variant != stated:
        raise InputError(f'{path} says that it is {stated}, not --variant={variant}')
    chosen = variant or stated
    if chosen is None:
        raise InputError(
            f'{path} does not say which network it is: make it a file that does, alexnet convert '
            f'--weights={path} --variant={one} --to=safetensors --output=FILE.safetensors, or --variant={other}'
        )
    name = infer_name(chosen, arrays)
    return make_caffe_network(name, convert_to_channels_last(name, arrays, source=path), source=str(path))


def make_caffe_network(name: NetworkName, params: Params, *, source: str) -> Network:
    """Makes a network of parameters that Caffe trained on BGR: conv1 is turned to RGB; Caffe's mean colour."""
    kernel = np.ascontiguousarray(params['conv1']['kernel'][:, :, ::-1])
    params = params | {'conv1': params['conv1'] | {'kernel': kernel}}
    return make_foreign_network(name, params, mean_rgb=MEAN_RGB, source=source)


def parse_mean(text: str, variant: Variant) -> np.ndarray:
    """Parses --mean, what a foreign network subtracts, to float32 (size, size, 3), RGB, 0..255.

    `size` is a crop's, or a record's where `variant` subtracts what is behind each crop.

    Args:
      text: 'R,G,B', three numbers of 0..255, or a .binaryproto file of the record's size, (1, 3, 256, 256), or of
        the crop's, in Caffe's order BGR.
      variant: the network.

    Raises:
      InputError: it is neither.
    """
    if re.fullmatch(r'[\d.]+(,[\d.]+){2}', text):
        try:
            red, green, blue = map(float, text.split(','))
        except ValueError as error:
            raise InputError(f'--mean={text}: give three numbers of 0..255, R,G,B') from error
        if max(red, green, blue) > 255:
            raise InputError(f'--mean={text}: pixels are 0..255')
        return make_flat_mean((red, green, blue), variant.input_size)
    try:
        bgr = _get_array(parse_message(CAFFE.BlobProto, map_file(pathlib.Path(text))))
    except MalformedError as error:
        raise InputError(f'--mean={text} is no .binaryproto of Caffe: {error}; or give R,G,B') from error
    bgr, size, record_size = bgr.reshape(bgr.shape[-3:]), variant.input_size, variant.record_size
    if bgr.shape not in ((3, record_size, record_size), (3, size, size)):
        raise InputError(f'--mean={text} is an image of {bgr.shape}, not of 3x{record_size}x{record_size}')
    rgb = np.asarray(bgr[::-1].transpose(1, 2, 0), np.float32)
    if not np.isfinite(rgb).all() or rgb.min() < 0 or rgb.max() > 255:
        raise InputError(f'--mean={text} holds values that are no pixels, 0..255')
    return np.ascontiguousarray(rgb if rgb.shape[0] == size else centre_crop(rgb, variant.mean_size))


def _get_array(blob: Any) -> np.ndarray:
    """Returns a BlobProto's numbers, float32 or float64, in its shape."""
    shape = (blob.num, blob.channels, blob.height, blob.width)
    if blob.HasField('shape'):
        shape = tuple(blob.shape.dim)
    # np.array copies a repeated field at once; np.fromiter would take a second for 24 million numbers.
    data = np.array(blob.double_data, '<f8') if blob.double_data else np.array(blob.data, '<f4')
    if not 0 < len(shape) <= 8 or min(shape) < 1 or math.prod(shape) != data.size:
        raise MalformedError(f'an array of {shape[:9]} with {data.size:,} numbers')
    return data.reshape(shape)


def _name_arrays(blobs: list[list[np.ndarray]]) -> dict[str, np.ndarray]:
    """Names the arrays of the eight layers that have some, by their order: fine-tuning renames the last ones."""
    if [len(pair) for pair in blobs] != [2] * len(LAYERS):
        raise MalformedError(f'{len(blobs)} layers have weights, not {len(LAYERS)} with a kernel and a bias each')
    arrays = {}
    for layer, (kernel, bias) in zip(LAYERS, blobs, strict=True):
        for part, array, axes in (('kernel', kernel, 4 if layer.startswith('conv') else 2), ('bias', bias, 1)):
            while array.ndim > axes and array.shape[0] == 1:  # before BlobShape every array had four axes
                array = array[0]
            arrays[f'{layer}/{part}'] = array
    return arrays
