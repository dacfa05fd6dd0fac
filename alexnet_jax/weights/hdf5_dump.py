"""Copies the arrays of Keras's HDF5 file to a NumPy archive: a program of its own, because HDF5 dies of forged files.

    python hdf5_dump.py FILE.h5 FILE.npz BYTES

It imports nothing of this project. h5py 3.14 was seen to die of a segmentation fault, and to run without end, on the
attributes of one file in some hundreds with a few bytes changed.
"""

import json
import sys
from typing import Any

import h5py
import numpy as np

MAX_ARRAYS = 10_000
_BESIDE = ('optimizer', 'optimizer_weights', 'metrics', 'compile_metrics')  # groups at the top of a .weights.h5


def main(source: str, target: str, limit: int) -> None:
    """Writes 'about', JSON of {config, listed, arrays: [[path, layer]]}, and the arrays as '0', '1', ...

    `listed`: the file lists its layers in their order. `limit`: bytes that all arrays may have.
    """
    with h5py.File(source, 'r') as file:
        top = file.get('model_weights', file)
        listed = 'layer_names' in top.attrs
        found = _list_h5(top) if listed else _list_weights_h5(file)
        if len(found) > MAX_ARRAYS:
            raise ValueError(f'it has {len(found):,} arrays')
        for path, _, item in found:
            limit -= item.size * item.dtype.itemsize
            if item.dtype.kind not in 'fiu' or item.is_virtual or item.external or limit < 0:
                raise ValueError(f'its {path[:60]} is no array of numbers that is in the file')
        config = file.attrs.get('model_config')
        about = {
            'config': None if config is None else _decode(config),
            'listed': listed,
            'arrays': [[path, layer] for path, layer, _ in found],
        }
        arrays = {str(place): item[()] for place, (_, _, item) in enumerate(found)}
    np.savez(target, about=json.dumps(about), **arrays)


def _list_h5(top: Any) -> list[tuple[str, str, Any]]:
    """Lists (path, layer's name, dataset) of a .h5: keras/src/legacy/saving/legacy_h5_format.py."""
    layers = [_decode(layer) for layer in top.attrs['layer_names']]
    names = [(layer, _decode(name)) for layer in layers for name in top[layer].attrs['weight_names']]
    return [(f'{layer}/{name}', layer, top[layer][name]) for layer, name in names]


def _list_weights_h5(file: Any) -> list[tuple[str, str, Any]]:
    """Lists those of a .weights.h5, where a layer's given name is an attribute: keras/src/saving/saving_lib.py."""
    found: list[tuple[str, str, Any]] = []

    def add(path: str, item: Any) -> None:
        groups = path.split('/')
        beside = groups[0] in _BESIDE or 'seed_generator' in groups  # which Dropout has
        if isinstance(item, h5py.Dataset) and len(groups) > 2 and not beside:
            found.append((path, _decode(item.parent.attrs.get('name', groups[-3])), item))

    file.visititems(add)
    return found


def _decode(text: Any) -> str:
    return text.decode() if isinstance(text, bytes) else str(text)


if __name__ == '__main__':
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
