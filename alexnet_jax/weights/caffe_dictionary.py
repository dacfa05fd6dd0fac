"""Reads and writes bvlc_alexnet.npy, the dictionary of arrays that caffe-tensorflow makes and many ports start from.

Source: ethereon/caffe-tensorflow kaffe/transformers.py, for two forms, {'conv1': [kernel, bias]} and {'conv1':
{'weights': kernel, 'biases': bias}}, for kernels (height, width, in, out), and for fc6, whose inputs it reorders to
(row, column, channel). conv1 reads BGR, as Caffe's does.
"""

import pathlib

import numpy as np

from alexnet_jax.errors import InputError
from alexnet_jax.files import map_file, replacing
from alexnet_jax.model.network import Network
from alexnet_jax.weights.array_pickle import unpickle_arrays
from alexnet_jax.weights.caffe import BY_NAME, make_caffe_network
from alexnet_jax.weights.layout import LAYERS, check_params, format_name, infer_name, unflatten
from alexnet_jax.weights.metadata import get_mean_colour
from alexnet_jax.weights.safetensors_file import SAVE_ARRAYS
from alexnet_jax.weights.torch_pickle import RefusedError

_NPY = b'\x93NUMPY'
_PARTS = {'0': 'kernel', '1': 'bias', 'weights': 'kernel', 'biases': 'bias'}


def is_npy(content: memoryview) -> bool:
    """Tells whether a file is what numpy.save writes."""
    return bytes(content[: len(_NPY)]) == _NPY


def load_dictionary(path: pathlib.Path, *, variant: str | None = None) -> Network:
    """Loads the network of a pickled dictionary of arrays, as numpy.save or pickle.dump wrote it; runs nothing.

    Raises:
      InputError: it holds something else, is damaged, or `variant` does not say which of Caffe's two it is.
    """
    content = map_file(path)
    try:
        arrays = _name_arrays(unpickle_arrays(bytes(content[_find_pickle(content) :])))
    except RefusedError as error:
        raise InputError(
            f"{path} is no dictionary of bvlc_alexnet's arrays, {{'conv1': [kernel, bias], ...}}: {error}. Load it "
            f"with the program that wrote it, and write its arrays, by torchvision's names and axes, with {SAVE_ARRAYS}"
        ) from error
    one, other = BY_NAME.values()
    if variant not in (one, other):
        raise InputError(
            f'{path} holds arrays of Caffe, which do not say in which order the network norms and pools: make it a '
            f'file that does, alexnet convert --weights={path} --variant={one} --to=safetensors '
            f'--output=FILE.safetensors, or --variant={other}; bvlc_alexnet is the first'
        )
    name = infer_name(variant, arrays)
    return make_caffe_network(name, check_params(name, unflatten(arrays), source=path), source=str(path))


def save_dictionary(network: Network, path: pathlib.Path) -> list[str]:
    """Writes {'conv1': [kernel, bias], ...} with numpy.save; returns a line for the person who uses it.

    Raises:
      InputError: the network is none of Caffe's two, or the file cannot be written.
    """
    if network.name.variant not in BY_NAME.values() or network.name.without or network.name.activation:
        raise InputError(
            f'programs that read such a file compute {" or ".join(BY_NAME.values())}, and this is '
            f'{format_name(network.name)}: write --to=safetensors or --to=onnx'
        )
    arrays = {layer: [network.params[layer]['kernel'], network.params[layer]['bias']] for layer in LAYERS}
    arrays['conv1'][0] = np.ascontiguousarray(arrays['conv1'][0][:, :, ::-1])
    with replacing(path) as file:
        np.save(file, np.array(arrays, object))
    blue_first = ', '.join(f'{value:.1f}' for value in reversed(get_mean_colour(network.mean_image)))
    return [f"np.load(FILE, allow_pickle=True, encoding='latin1').item(); conv1 reads BGR, 0..255, minus {blue_first}"]


def _find_pickle(content: memoryview) -> int:
    """Returns where the pickle begins: behind the header of numpy.save, which has to say that it is of an object."""
    if not is_npy(content):
        return 0
    sizes = content[8:10] if content[6:7] == b'\x01' else content[8:12]  # numpy/lib/format.py; of versions 2 and 3
    start = 8 + len(sizes) + int.from_bytes(sizes, 'little')
    if b"'descr': '|O" not in bytes(content[:start][:1024]):
        raise RefusedError('it is one array')
    return start


def _name_arrays(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the arrays by our names; their axes are ours already."""
    split = [name.partition('/') for name in found]
    wanted = {(layer, part) for layer in LAYERS for part in ('kernel', 'bias')}
    if {(layer, _PARTS.get(part)) for layer, _, part in split} != wanted:
        raise RefusedError(f'it has {", ".join(found)[:80] or "no arrays"}')
    return {f'{layer}/{_PARTS[part]}': array for (layer, _, part), array in zip(split, found.values(), strict=True)}
