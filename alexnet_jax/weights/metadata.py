"""Metadata that travels beside the weights, as strings: which network, and how it wants its images.

The same keys go into the metadata of a safetensors file and of an ONNX model; docs/weights.md lists them.
"""

import json
import math
from collections.abc import Mapping, Sequence

import numpy as np

from alexnet_jax.checkpoints.hashes import hash_array, hash_tree
from alexnet_jax.data.preprocessing import PAPER, PREPROCESSINGS, describe_preprocessing
from alexnet_jax.errors import InputError
from alexnet_jax.model.ablations import ABLATIONS, ACTIVATIONS
from alexnet_jax.model.network import Network, NetworkName, rename_earlier
from alexnet_jax.model.zoo import NETWORKS
from alexnet_jax.weights.layout import MAX_WIDTH, Params

FORMAT_KEY, FORMAT = 'alexnet_jax', 'weights 1'  # tells that a file has metadata of this project, and in which form
MAX_CLASSES = 1_000_000


def get_mean_colour(mean_image: np.ndarray) -> list[float]:
    """Returns the mean over all places of (height, width, 3), 0..255."""
    return np.asarray(mean_image, np.float64).mean(axis=(0, 1)).tolist()


def make_flat_mean(mean_rgb: Sequence[float], size: int) -> np.ndarray:
    """Makes a mean image of one colour, float32 (size, size, 3)."""
    return np.broadcast_to(np.asarray(mean_rgb, np.float32), (size, size, 3)).copy()


def make_metadata(network: Network) -> dict[str, str]:
    """Makes the metadata of a network, sorted by key; values of more than one word are JSON, `resize` is prose."""
    variant = network.variant
    metadata = {
        FORMAT_KEY: FORMAT,
        'variant': network.name.variant,
        'width': repr(float(network.name.width)),
        'without': json.dumps(network.name.without),
        'input_size': str(variant.input_size),
        'record_size': str(variant.record_size),
        'preprocessing': network.preprocessing,
        'resize': describe_preprocessing(network.preprocessing, variant.record_size),
        'crop': 'centre',
        'channel_order': 'RGB',
        'pixel_range': '[0, 255]',
        'mean_at': 'centre' if len(network.mean_image) == variant.input_size else 'crop',
        'mean_rgb': json.dumps(get_mean_colour(network.mean_image)),
        'pixel_std': json.dumps(variant.pixel_std),
        'classes': json.dumps(network.classes),
        'source': network.source,
        'about': json.dumps(network.about),
        'params_sha256': hash_tree(network.params),
        'mean_sha256': hash_array(np.asarray(network.mean_image, np.float32)),
    }
    if network.name.activation:
        metadata['activation'] = network.name.activation
    return dict(sorted(metadata.items()))


def parse_metadata(values: Mapping[str, str], *, path: object) -> Network:
    """Parses what `make_metadata` made to a network with no weights yet, whose mean image is one colour.

    `InputError` where it is of a later version, damaged, or names what does not exist.
    """
    if values.get(FORMAT_KEY) != FORMAT:
        raise InputError(f'{path} holds {str(values.get(FORMAT_KEY))[:40]!r}, and this version reads {FORMAT!r}')
    try:
        variant = values['variant'] if 'mean_at' in values else rename_earlier(values['variant'])
        without, activation = _parse_texts(values['without']), values.get('activation', '')
        name = NetworkName(variant, float(values['width']), without, activation)
        red, green, blue = map(float, json.loads(values['mean_rgb']))
        classes, source, about = _parse_texts(values['classes']), values['source'], json.loads(values['about'])
        size, pixel_std = int(values['input_size']), tuple(json.loads(values['pixel_std']))
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise InputError(f'{path} is damaged: its metadata cannot be read ({type(error).__name__})') from error
    known = name.variant in NETWORKS and set(name.without) <= set(ABLATIONS) and name.activation in {*ACTIVATIONS, ''}
    if not known:
        raise InputError(
            f'{path} holds a network that this version does not know: {name.variant} {name.without} {name.activation}'
        )
    if not 0 < name.width <= MAX_WIDTH or not all(map(math.isfinite, (red, green, blue))):
        raise InputError(f'{path} is damaged: width {name.width}, mean_rgb {(red, green, blue)}')
    if not isinstance(about, dict) or len(classes) > MAX_CLASSES:
        raise InputError(f'{path} is damaged: its metadata is not what this program writes')
    network = name.build()
    if (size, pixel_std) != (network.input_size, network.pixel_std):
        raise InputError(
            f'{path} wants crops of {size} over {pixel_std}, and {name.variant} reads {network.input_size} over '
            f'{network.pixel_std}: it was written by another version'
        )
    # Earlier versions did not say: a run's images were made in one way, those of others by their programs.
    preprocessing = values.get('preprocessing', PAPER if 'config' in about else network.preprocessing)
    if preprocessing not in PREPROCESSINGS:
        raise InputError(f'{path} was trained on images made by {preprocessing!r}, which this version does not know')
    return Network(
        name=name,
        params={},
        mean_image=make_flat_mean((red, green, blue), size),
        classes=classes,
        source=source,
        about=about,
        preprocessing=preprocessing,
    )


def check_hashes(network: Network, values: Mapping[str, str], *, path: object) -> Network:
    """Returns `network` if its weights and mean image have the hashes of `values`, the metadata; else `InputError`."""
    hashes = {'params_sha256': hash_tree(network.params), 'mean_sha256': hash_array(network.mean_image)}
    if hashes != {key: values.get(key) for key in hashes}:
        raise InputError(f'{path} is damaged: its weights do not have the hash that it names; write it anew')
    outputs = network.params['fc8']['bias'].size
    if len(network.classes) != outputs:
        raise InputError(f'{path} is damaged: it names {len(network.classes)} classes for {outputs} outputs')
    return network


def make_foreign_network(name: NetworkName, params: Params, *, mean_rgb: Sequence[float], source: str) -> Network:
    """Makes a network that another program trained: its mean is a colour, its classes are '0', '1', ..."""
    classes = tuple(str(index) for index in range(params['fc8']['bias'].size))
    variant = name.build()
    return Network(
        name=name,
        params=params,
        mean_image=make_flat_mean(mean_rgb, variant.input_size),
        classes=classes,
        source=source,
        preprocessing=variant.preprocessing,
    )


def _parse_texts(text: str) -> tuple[str, ...]:
    """Parses a JSON list of strings; ValueError if it is none."""
    values = json.loads(text)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(text)
    return tuple(values)
