"""Weights as .safetensors: this project's own file, and the format underneath it.

Format: huggingface/safetensors README, "Format": 8 bytes with the header's length, a JSON header, the arrays' bytes.
Reading is the safetensors library's, which checks every offset. Writing is done here, because the library's metadata
comes in another order each time, and the same network shall give the same file.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping

import numpy as np
import safetensors

from alexnet_jax import InputError
from alexnet_jax.interchange import card as cards
from alexnet_jax.interchange.files import replacing
from alexnet_jax.interchange.tree import checked, flat, nested
from alexnet_jax.model.network import Network

MEAN_IMAGE = 'mean_image'
_FLOATS = ('F64', 'F32', 'F16', 'BF16')


def save(network: Network, path: pathlib.Path) -> None:
    """Writes 'conv1/kernel' (height, width, in, out) ..., 'mean_image' (size, size, 3), all float32, and the card.

    Raises:
      InputError: the file cannot be written.
    """
    arrays = flat(network.params) | {MEAN_IMAGE: np.asarray(network.mean_image, np.float32)}
    write(arrays, cards.written(network), path)


def network_of(arrays: dict[str, np.ndarray], *, path: pathlib.Path, card: cards.Card) -> Network:
    """The network that `save` wrote, the same bit for bit, of what `read` found.

    Raises:
      InputError: it is not as it was written.
    """
    weights = dict(arrays)
    mean_image = weights.pop(MEAN_IMAGE, None)
    size = card.name.build().input_size
    if mean_image is None or mean_image.shape != (size, size, 3) or mean_image.dtype != np.float32:
        raise InputError(f'{path} is damaged: it has no {MEAN_IMAGE} of {size}x{size}x3 float32')
    if any(array.dtype != np.float32 for array in weights.values()):
        raise InputError(f'{path} is damaged: its weights are not float32')
    params = checked(card.name, nested(weights), source=path)
    return cards.network_of(card, params, mean_image, path=path)


def write(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str], path: pathlib.Path) -> None:
    """Writes float32 arrays in the order of their names, one at a time; the file appears when it is whole.

    Raises:
      InputError: it cannot be written.
    """
    header: dict[str, object] = {'__metadata__': dict(metadata)}
    start = 0
    for name in sorted(arrays):
        array = arrays[name]
        if array.dtype != np.float32:
            raise TypeError(f'{name} is {array.dtype}')
        header[name] = {'dtype': 'F32', 'shape': array.shape, 'data_offsets': (start, start + array.nbytes)}
        start += array.nbytes
    text = json.dumps(header, separators=(',', ':')).encode()
    text += b' ' * (-len(text) % 8)  # so that the arrays lie on multiples of 8 bytes
    with replacing(path) as file:
        file.write(len(text).to_bytes(8, 'little') + text)
        for name in sorted(arrays):
            file.write(np.ascontiguousarray(arrays[name]).astype('<f4', copy=False).data)


def read(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """All arrays and the metadata of a .safetensors file; BF16, which NumPy does not know, as float32.

    Raises:
      InputError: it is damaged, or holds other types than floating-point numbers.
    """
    try:
        with safetensors.safe_open(path, framework='numpy') as file:
            metadata = file.metadata() or {}
            names = list(file.keys())
            for name in names:
                kind = file.get_slice(name).get_dtype()
                if kind not in _FLOATS:
                    raise InputError(f'{path} holds {name} as {kind}: only {", ".join(_FLOATS)} are read')
            return {name: _floats(file.get_tensor(name)) for name in names}, metadata
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f'{path} cannot be read as safetensors: {" ".join(str(error).split())}') from error


def _floats(array: np.ndarray) -> np.ndarray:
    return array if array.dtype in (np.float64, np.float32, np.float16) else array.astype(np.float32)
