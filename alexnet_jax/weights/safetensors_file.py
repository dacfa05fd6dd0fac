"""Weights as .safetensors: this project's own file, and the format underneath it.

Format: huggingface/safetensors README, "Format": 8 bytes with the header's length, a JSON header, the arrays' bytes.
Reading is the safetensors library's, which checks every offset. Writing is done here, because the library's metadata
comes in another order each time, and the same network shall give the same file.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping

import numpy as np
import safetensors

from alexnet_jax.errors import InputError
from alexnet_jax.files import replacing
from alexnet_jax.model.network import Network
from alexnet_jax.weights.layout import check_params, flatten, unflatten
from alexnet_jax.weights.metadata import check_hashes, make_metadata, parse_metadata

MEAN_IMAGE = 'mean_image'
# What messages tell others to write. The library's 0.8.0 saves transposed arrays, as MATLAB's are, in memory's order.
SAVE_ARRAYS = (
    'safetensors.numpy.save_file({name: numpy.ascontiguousarray(array) for name, array in arrays.items()}, FILE)'
)
_READ = ('F64', 'F32', 'F16', 'BF16', 'I64', 'I32', 'I16', 'I8', 'U8', 'BOOL')


def save_safetensors(network: Network, path: pathlib.Path) -> None:
    """Writes 'conv1/kernel' (height, width, in, out) ..., 'mean_image' (size, size, 3), all float32, and the metadata.

    `InputError` where the file cannot be written.
    """
    arrays = flatten(network.params) | {MEAN_IMAGE: np.asarray(network.mean_image, np.float32)}
    write_safetensors(arrays, make_metadata(network), path)


def load_network_arrays(arrays: dict[str, np.ndarray], values: Mapping[str, str], *, path: pathlib.Path) -> Network:
    """Loads what `save_safetensors` wrote from what `read_safetensors` read; `InputError` where it was changed."""
    network = parse_metadata(values, path=path)
    weights = dict(arrays)
    mean_image = weights.pop(MEAN_IMAGE, None)
    if mean_image is None or not network.name.takes_mean(mean_image):
        raise InputError(f'{path} is damaged: it has no {MEAN_IMAGE} of {network.mean_image.shape} float32')
    if any(array.dtype != np.float32 for array in weights.values()):
        raise InputError(f'{path} is damaged: its weights are not float32')
    params = check_params(network.name, unflatten(weights), source=path)
    return check_hashes(dataclasses.replace(network, params=params, mean_image=mean_image), values, path=path)


def write_safetensors(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str], path: pathlib.Path) -> None:
    """Writes float32 arrays in the order of their names, one at a time; `InputError` where that cannot be done."""
    header: dict[str, object] = {'__metadata__': dict(metadata)}
    start = 0
    for name, array in sorted(arrays.items()):
        if array.dtype != np.float32:
            raise TypeError(f'{name} is {array.dtype}')
        header[name] = {'dtype': 'F32', 'shape': array.shape, 'data_offsets': (start, start + array.nbytes)}
        start += array.nbytes
    text = json.dumps(header, separators=(',', ':')).encode()
    text += b' ' * (-len(text) % 8)  # so that the arrays lie on multiples of 8 bytes
    with replacing(path) as file:
        file.write(len(text).to_bytes(8, 'little') + text)
        for _, array in sorted(arrays.items()):
            file.write(np.ascontiguousarray(array).astype('<f4', copy=False).data)


def read_safetensors(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Reads all arrays and the metadata of a .safetensors file; BF16, which NumPy does not know, as float32.

    Raises:
      InputError: it is damaged, or holds numbers of fewer bits than NumPy's.
    """
    try:
        with safetensors.safe_open(path, framework='numpy') as file:
            arrays = {}
            for name in list(file.keys()):
                kind = file.get_slice(name).get_dtype()
                if kind not in _READ:
                    raise InputError(
                        f'{path} holds {name} as {kind}: save it as floats, {", ".join(_READ[:4])} are read'
                    )
                array = file.get_tensor(name)
                arrays[name] = array.astype(np.float32) if kind == 'BF16' else array
            return arrays, file.metadata() or {}
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(
            f'{path} cannot be read as safetensors: {" ".join(str(error).split())}; copy it again'
        ) from error
