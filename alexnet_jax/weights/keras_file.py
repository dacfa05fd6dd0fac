"""Reads Keras's files of AlexNets: .keras and .weights.h5 of Keras 3, .h5 of Keras 2 and 3. Needs h5py.

Source: keras-team/keras keras/src/saving/saving_lib.py, and keras/src/legacy/saving/legacy_h5_format.py for .h5. Its
axes are ours: kernels (height, width, in, out) and (in, out), and fc6 reads (row, column, channel). In a .weights.h5 a
layer's path is its class and its number, conv2d_1, and the name that it was given is an attribute.
"""

import importlib.util
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import zipfile
from typing import Any, NamedTuple

import numpy as np

from alexnet_jax.errors import InputError
from alexnet_jax.model.network import Network
from alexnet_jax.model.zoo import VARIANTS
from alexnet_jax.weights import torchvision
from alexnet_jax.weights.caffe import MEAN_RGB
from alexnet_jax.weights.keras_layers import list_layers
from alexnet_jax.weights.layer_sequence import check_layers
from alexnet_jax.weights.layout import LAYERS, check_params, infer_name, unflatten
from alexnet_jax.weights.metadata import make_foreign_network
from alexnet_jax.weights.proto_messages import MalformedError
from alexnet_jax.weights.safetensors_file import SAVE_ARRAYS

_HDF5 = b'\x89HDF\r\n\x1a\n'
MAX_RATIO = 64  # of numbers to the bytes that they are stored in, where they are compressed
MAX_SECONDS = 120
_PLACE = re.compile(r'(conv2d|dense)(?:_(\d+))?')
_DAMAGED = (OSError, KeyError, ValueError, RuntimeError, TypeError, RecursionError, zipfile.BadZipFile)


class _Weights(NamedTuple):
    """A layer's arrays.

    Attributes:
      path: where they are in the file.
      title: the layer's name.
      arrays: kernel and bias.
    """

    path: str
    title: str
    arrays: list[np.ndarray]


def is_hdf5(content: memoryview) -> bool:
    """Tells whether a file is HDF5."""
    return bytes(content[:8]) == _HDF5


def load_keras(path: pathlib.Path, *, variant: str | None = None) -> Network:
    """Loads the network of a Keras file; its images are taken to be RGB.

    A model with its layers is compared with torchvision's network, the only one here that Keras has all layers of. Of
    weights alone the shapes say whether they are of that one, or of two towers, of which `variant` says which.

    Raises:
      InputError: h5py is missing, or the file is damaged, or of another network.
    """
    if importlib.util.find_spec('h5py') is None:
        raise InputError(f"{path} is HDF5, as Keras writes it, and h5py reads that: pip install 'alexnet-jax[keras]'")
    try:
        about, values = _read(path)
        layers = None if about['config'] is None else list_layers(json.loads(about['config']))
        if layers is not None:
            check_layers(torchvision.VARIANT, layers)
        titles = [one.title for one in layers or () if one.kind in ('Conv', 'Gemm')]
        arrays = _name_arrays(_order(_list_layers(about['arrays'], values), titles, listed=about['listed']))
    except MalformedError as error:
        raise InputError(
            f"{path} holds no AlexNet of Keras that is known here: {error}. Read are the layers of torchvision's "
            'alexnet, and weights alone of that or two towers by groups=2'
        ) from error
    except _DAMAGED as error:
        raise InputError(
            f'{path} is no Keras file that can be read: {" ".join(str(error).split())[:100]}; copy it again, or write '
            f'its arrays with {SAVE_ARRAYS}'
        ) from error
    chosen = _choose(path, arrays, variant)
    name = infer_name(chosen, arrays)
    params = check_params(name, unflatten(arrays), source=path)
    mean_rgb = torchvision.MEAN_RGB if chosen == torchvision.VARIANT else MEAN_RGB
    return make_foreign_network(name, params, mean_rgb=mean_rgb, source=str(path))


def _choose(path: pathlib.Path, arrays: dict[str, np.ndarray], variant: str | None) -> str:
    """Returns which network the arrays are of: by conv2, which reads all kernels of conv1, or those of its tower."""
    if arrays['conv2/kernel'].shape[2] == arrays['conv1/kernel'].shape[3]:
        return torchvision.VARIANT
    two = [name for name, one in VARIANTS.items() if one.towers == 2]
    if variant not in two:
        raise InputError(
            f'{path} holds weights of two towers, which do not say where their network norms and pools: make it a file '
            f'that does, alexnet convert --weights={path} --variant=NAME --to=safetensors --output=FILE.safetensors, '
            f'with one of {", ".join(two)}'
        )
    return variant


def _read(path: pathlib.Path) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Reads what hdf5_dump.py writes of a file, and of a .keras its config.json."""
    config, size = None, path.stat().st_size
    with tempfile.TemporaryDirectory() as folder:
        source, target = path, pathlib.Path(folder, 'w.npz')
        if zipfile.is_zipfile(path):
            config, source = _unzip(path, pathlib.Path(folder))
        program = str(pathlib.Path(__file__).with_name('hdf5_dump.py'))
        command = [sys.executable, '-P', program, str(source.absolute()), str(target), str(MAX_RATIO * size + 2**20)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=MAX_SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise MalformedError('h5py does not come to an end with it') from error
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.strip()]
            raise ValueError(said[-1] if done.returncode == 1 and said else 'h5py dies of it')
        with np.load(target) as archive:
            about = json.loads(str(archive['about']))
            values = [archive[str(place)] for place in range(len(about['arrays']))]
    return about | {'config': config or about['config']}, values


def _unzip(path: pathlib.Path, folder: pathlib.Path) -> tuple[str, pathlib.Path]:
    """Returns the config of a .keras, and its .weights.h5, unpacked to `folder`."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: info for info in archive.infolist()}
        for name in ('config.json', 'model.weights.h5'):
            if name not in members or members[name].compress_type != zipfile.ZIP_STORED:
                raise MalformedError(f'there is no {name} in it as Keras writes it')
        return archive.read('config.json').decode(), pathlib.Path(archive.extract('model.weights.h5', folder))


def _list_layers(names: list[tuple[str, str]], values: list[np.ndarray]) -> list[_Weights]:
    """Lists the layers that have arrays; `MalformedError` names what is no kernel or bias of one."""
    layers: dict[tuple[str, str], _Weights] = {}
    for (name, title), array in zip(names, values, strict=True):
        folder = name.rsplit('/', 1)[0].removesuffix('/vars')
        layers.setdefault((folder, title), _Weights(folder, title, [])).arrays.append(array)
    for one in layers.values():
        if len(one.arrays) != 2:
            shapes = ', '.join(str(array.shape) for array in one.arrays[:5])
            raise MalformedError(
                f'its layer {one.path[:60]} ({one.title[:40]}) has arrays of {shapes}, no kernel and bias'
            )
    return list(layers.values())


def _order(found: list[_Weights], titles: list[str], *, listed: bool) -> list[_Weights]:
    """Orders eight layers: by names, those of a model's config or ours, or as the file lists them, or by numbers."""
    if len(found) != len(LAYERS):
        shapes = ', '.join(f'{one.title[:20]} {one.arrays[0].shape}' for one in found[:12])
        raise MalformedError(f'{len(found)} layers have weights, not {len(LAYERS)}: {shapes}')
    for names in (titles, LAYERS):
        for found_names in ([one.title for one in found], [one.path.split('/')[-1] for one in found]):
            # Models in one another may each have a layer of one name.
            if len({*names}) == len(LAYERS) and sorted(names) == sorted(found_names):
                return [found[found_names.index(name)] for name in names]
    if listed:
        return found
    keys = []
    for one in found:
        match = _PLACE.fullmatch(one.path.split('/')[-1])
        if match is None:
            raise MalformedError(f'its layer {one.path[:60]} is neither Conv2D nor Dense, nor called as {LAYERS[0]} is')
        keys.append((match[1], int(match[2] or 0)))
    if len({*keys}) < len(keys):
        twice = max(keys, key=keys.count)[0]
        raise MalformedError(
            f'two of its layers are {twice} of one number: name the layers {LAYERS[0]} to {LAYERS[-1]}'
        )
    return [found[keys.index(key)] for key in sorted(keys)]


def _name_arrays(found: list[_Weights]) -> dict[str, np.ndarray]:
    """Returns the arrays of eight layers by our names."""
    arrays: dict[str, np.ndarray] = {}
    for layer, one in zip(LAYERS, found, strict=True):
        kernel, bias = one.arrays
        if kernel.ndim != (4 if layer.startswith('conv') else 2) or {kernel.dtype.kind, bias.dtype.kind} != {'f'}:
            raise MalformedError(f'its layer {one.title[:40]} has a kernel {kernel.shape} {kernel.dtype} for {layer}')
        arrays |= {f'{layer}/kernel': kernel, f'{layer}/bias': bias}
    return arrays
