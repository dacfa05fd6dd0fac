"""What travels beside the weights, as strings: which network, and how it wants its images.

The same keys go into the metadata of a safetensors file and of an ONNX model; docs/weights.md lists them.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from alexnet_jax import InputError
from alexnet_jax.interchange.tree import MAX_WIDTH
from alexnet_jax.model.ablations import ABLATIONS
from alexnet_jax.model.catalogue import NETWORKS
from alexnet_jax.model.network import Network, NetworkName
from alexnet_jax.training.digests import digest, tree_hash

KEY, FORMAT = 'alexnet_jax', 'weights 1'  # what says that a file has a card, and in which form
RESIZE = 'shorter side to {0}, bicubic with antialiasing; centre {0}x{0}'  # data/photo.py square_image
MAX_CLASSES = 1_000_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
    """What a file says of its network; see `model.network.Network` for `name`, `classes`, `source` and `about`.

    Attributes:
      mean_rgb: the mean image's mean colour, RGB, 0..255.
      params_sha256: training.digests.tree_hash of the parameters; '' where the file does not say.
      mean_sha256: training.digests.digest of the mean image; '' where the file does not say.
    """

    name: NetworkName
    mean_rgb: tuple[float, float, float]
    classes: tuple[str, ...]
    source: str
    about: dict[str, Any]
    params_sha256: str
    mean_sha256: str


def mean_colour(mean_image: np.ndarray) -> tuple[float, float, float]:
    """The mean over all places of (height, width, 3), 0..255."""
    red, green, blue = np.asarray(mean_image, np.float64).mean(axis=(0, 1))
    return float(red), float(green), float(blue)


def flat_mean(mean_rgb: tuple[float, float, float], size: int) -> np.ndarray:
    """A mean image of one colour, float32 (size, size, 3)."""
    return np.broadcast_to(np.asarray(mean_rgb, np.float32), (size, size, 3)).copy()


def written(network: Network) -> dict[str, str]:
    """The card of a network, sorted by key; every value that is more than one word is JSON, `resize` prose."""
    variant = network.variant
    card = {
        KEY: FORMAT,
        'variant': network.name.variant,
        'width': repr(float(network.name.width)),
        'without': json.dumps(list(network.name.without)),
        'input_size': str(variant.input_size),
        'record_size': str(variant.record_size),
        'resize': RESIZE.format(variant.record_size),
        'crop': 'centre',
        'channel_order': 'RGB',
        'pixel_range': '[0, 255]',
        'mean_rgb': json.dumps(mean_colour(network.mean_image)),
        'pixel_std': json.dumps(variant.pixel_std),
        'classes': json.dumps(network.classes),
        'source': network.source,
        'about': json.dumps(network.about),
        'params_sha256': tree_hash(network.params),
        'mean_sha256': digest(np.asarray(network.mean_image, np.float32)),
    }
    return dict(sorted(card.items()))


def understood(metadata: Mapping[str, str], *, path: object) -> Card:
    """The card that `written` wrote; `path` names the file in the message.

    Raises:
      InputError: it is none, of a later version, or names what does not exist.
    """
    if metadata.get(KEY) != FORMAT:
        raise InputError(f'{path} holds {str(metadata.get(KEY))[:40]!r}, and this version reads {FORMAT!r}')
    try:
        name = NetworkName(metadata['variant'], float(metadata['width']), _texts(metadata['without']))
        red, green, blue = (float(x) for x in json.loads(metadata['mean_rgb']))
        card = Card(
            name=name,
            mean_rgb=(red, green, blue),
            classes=_texts(metadata['classes']),
            source=metadata['source'],
            about=json.loads(metadata['about']),
            params_sha256=metadata['params_sha256'],
            mean_sha256=metadata['mean_sha256'],
        )
        size, pixel_std = int(metadata['input_size']), tuple(json.loads(metadata['pixel_std']))
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise InputError(f'{path} is damaged: its metadata cannot be read ({type(error).__name__})') from error
    if name.variant not in NETWORKS or not set(name.without) <= set(ABLATIONS):
        raise InputError(f'{path} holds a network that this version does not know: {name.variant} {name.without}')
    if not 0 < name.width <= MAX_WIDTH or not all(map(math.isfinite, card.mean_rgb)):
        raise InputError(f'{path} is damaged: width {name.width}, mean_rgb {card.mean_rgb}')
    if not isinstance(card.about, dict) or len(card.classes) > MAX_CLASSES:
        raise InputError(f'{path} is damaged: its metadata is not what this program writes')
    variant = name.build()
    if (size, pixel_std) != (variant.input_size, variant.pixel_std):
        raise InputError(
            f'{path} wants crops of {size} over {pixel_std}, and {name.variant} reads {variant.input_size} over '
            f'{variant.pixel_std}: it was written by another version'
        )
    return card


def network_of(
    card: Card, params: dict[str, dict[str, np.ndarray]], mean_image: np.ndarray, *, path: object
) -> Network:
    """The network of a card and the arrays beside it, which are as they were written.

    Raises:
      InputError: their hashes are others, or the classes are not as many as the outputs.
    """
    if tree_hash(params) != card.params_sha256 or digest(mean_image) != card.mean_sha256:
        raise InputError(f'{path} is damaged: its weights do not have the hash that it names; write it anew')
    outputs = params['fc8']['bias'].size
    if len(card.classes) != outputs:
        raise InputError(f'{path} is damaged: it names {len(card.classes)} classes for {outputs} outputs')
    return Network(
        name=card.name,
        params=params,
        mean_image=mean_image,
        classes=card.classes,
        source=card.source,
        about=card.about,
    )


def _texts(text: str) -> tuple[str, ...]:
    """A JSON list of strings."""
    values = json.loads(text)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(text)
    return tuple(values)
