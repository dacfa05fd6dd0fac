"""Reads the NumPy archive that `alexnet checkpoint export` writes: weights, mean image, what is known of the run."""

import json
import pathlib
import zipfile
from typing import Any

import numpy as np

from alexnet_jax.checkpoints.hashes import hash_tree
from alexnet_jax.data.preprocessing import PAPER, PREPROCESSINGS
from alexnet_jax.errors import InputError
from alexnet_jax.model.ablations import ABLATIONS, ACTIVATIONS, TRAINING_ONLY
from alexnet_jax.model.network import Network, NetworkName, rename_earlier
from alexnet_jax.model.zoo import NETWORKS
from alexnet_jax.weights.layout import MAX_WIDTH, check_params, infer_name, unflatten

_CONFIG = ('variant', 'precision', 'batch_size', 'dataset', 'data_dir')  # what a network's `about` is asked for


def load_npz(path: pathlib.Path, *, variant: str | None = None) -> Network:
    """Loads the network of an exported checkpoint; its classes are '0', '1', ... where the export does not name them.

    Raises:
      InputError: it is damaged, or does not say which network it is, where `variant` does not either.
    """
    try:
        arrays, about = _read(path)
    except (
        ValueError,
        KeyError,
        TypeError,
        OSError,
        EOFError,
        RecursionError,
        MemoryError,
        zipfile.BadZipFile,
    ) as error:
        raise InputError(f'{path} is damaged: {" ".join(str(error).split())[:100]}; export it again') from error
    mean_image, config = arrays.pop('mean_image'), about.get('config') or {}
    if 'variant' in config and 'mean_at' not in config:
        config |= {'variant': rename_earlier(config['variant'])}
    chosen = config.get('variant', variant)
    if chosen not in NETWORKS:
        raise InputError(
            f'{path} does not say which network it is: make it a file that does, alexnet convert --weights={path} '
            '--variant=NAME --to=safetensors --output=FILE.safetensors, with the variant of its run'
        )
    without = tuple(sorted({*config.get('without', ())} - TRAINING_ONLY))
    activation = config.get('activation', '')
    name = NetworkName(chosen, config.get('width') or infer_name(chosen, arrays).width, without, activation)
    known = set(without) <= set(ABLATIONS) and activation in {*ACTIVATIONS, ''}
    if not known or not 0 < name.width <= MAX_WIDTH:
        raise InputError(
            f'{path} holds a network that this version does not know: {without} {activation}, width {name.width}'
        )
    params = check_params(name, unflatten(arrays), source=path)
    outputs = params['fc8']['bias'].size
    if not name.takes_mean(mean_image) or not np.isfinite(mean_image).all():
        raise InputError(f'{path} is damaged: its mean_image is {mean_image.shape} {mean_image.dtype}; export it again')
    if hash_tree(params) != about.get('params_sha256'):
        raise InputError(f'{path} is damaged: its weights do not have the hash that it names; export it again')
    classes = tuple(about.get('classes') or map(str, range(outputs)))
    if len(classes) != outputs:
        raise InputError(f'{path} is damaged: it names {len(classes)} classes for {outputs} outputs; export it again')
    kept: dict[str, Any] = {key: about[key] for key in ('step', 'params_sha256') if key in about}
    if set(_CONFIG) <= config.keys():
        kept['config'] = config
    source = f'{path}, step {about.get("step")}'
    preprocessing = about.get('preprocessing') or PAPER  # of an earlier version
    if preprocessing not in PREPROCESSINGS:
        raise InputError(f'{path} is damaged: it names preprocessing {preprocessing!r}; export it again')
    parts: dict[str, Any] = {
        'name': name,
        'params': params,
        'mean_image': mean_image,
        'classes': classes,
        'source': source,
    }
    return Network(**parts, about=kept, preprocessing=preprocessing)


def _read(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads the arrays and the JSON beside them; raises what NumPy and JSON raise of damage."""
    with np.load(path, allow_pickle=False) as archive:
        # Stored as they are, so that a small file cannot fill the memory.
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.zip.infolist()):
            raise ValueError('it is compressed, which an export is not')
        arrays = {name: archive[name] for name in archive.files}
    about = json.loads(str(arrays.pop('about')[()]))
    if not isinstance(about, dict) or not isinstance(about.get('config') or {}, dict) or 'mean_image' not in arrays:
        raise ValueError('it is not what alexnet checkpoint export writes')
    if any(array.dtype != np.float32 for array in arrays.values()):
        raise ValueError('its weights are not float32')
    return arrays, about
