"""Loads the network that a run has trained, and its settings, from its folder."""

import json
import pathlib
from typing import Any

import jax
import numpy as np

from alexnet_jax.checkpoints.hashes import hash_tree
from alexnet_jax.checkpoints.inspect import find_checkpoint
from alexnet_jax.checkpoints.manifest import DamagedError
from alexnet_jax.checkpoints.orbax_io import load_arrays
from alexnet_jax.data.dataset import open_dataset
from alexnet_jax.data.preprocessing import PAPER, PREPROCESSINGS
from alexnet_jax.errors import InputError
from alexnet_jax.files import check_utf8
from alexnet_jax.model.alexnet import get_parameter_shapes
from alexnet_jax.model.network import Network, rename_earlier
from alexnet_jax.training.build import get_network_name
from alexnet_jax.training.config import Config, make_config
from alexnet_jax.training.validation import validate_config

_RENAMED = {'on_bad_numbers': 'on_non_finite', 'max_bad_numbers': 'max_non_finite'}  # settings of earlier versions


def load_network(workdir: pathlib.Path, *, step: int | None = None) -> Network:
    """Loads the network of checkpoint `step` of a run folder, None: of the newest, verified.

    Its `about` holds 'step', 'params_sha256' and 'config'.

    Raises:
      InputError: there is no such checkpoint, or it is damaged.
    """
    check_utf8(workdir, option='--workdir')
    path = find_checkpoint(workdir, step)
    config = load_config(workdir)
    try:
        tree = load_arrays(path)
    except DamagedError as error:
        raise InputError(
            f'checkpoint {path} is damaged: {error}; name another with --step, or start the run again, which goes back '
            f'to one that is whole'
        ) from error
    params = jax.tree.map(np.asarray, tree['params'])
    name = get_network_name(config)
    outputs = params['fc8']['bias'].size
    wanted = get_parameter_shapes(name.build(), num_classes=outputs)
    if jax.tree.map(np.shape, params) != jax.tree.map(np.shape, wanted):
        raise InputError(f'{path} does not hold the network that {workdir / "config.json"} names')
    return Network(
        name=name,
        params=params,
        mean_image=np.asarray(tree['mean_image']),
        classes=_load_classes(workdir, config, outputs),
        source=f'{workdir}, step {path.name}',
        preprocessing=_load_preprocessing(workdir),
        about={'step': int(path.name), 'params_sha256': hash_tree(tree['params']), 'config': config.to_json()},
    )


def load_config(workdir: pathlib.Path) -> Config:
    """Loads the settings of a run folder; keys that it does not have are as they were, or get today's defaults.

    Raises:
      InputError: there are none, or they are damaged.
    """
    check_utf8(workdir, option='--workdir')
    path = workdir / 'config.json'
    try:
        settings = json.loads(path.read_text())
        if 'mean_at' not in settings:  # of an earlier version, whose crops all had the centre of the mean image
            settings |= {'mean_at': 'centre', 'variant': rename_earlier(settings.get('variant', 'paper'))}
        config = make_config(settings['dataset'], parallelism=settings.get('parallelism', 'two_device'))
        for name, value in settings.items():
            key = _RENAMED.get(name, name)
            if key in config:
                with config.ignore_type():
                    config[key] = tuple(value) if isinstance(value, list) else value
        return validate_config(config)
    except OSError as error:
        reason = f'{path.name}: {error.strerror}'
        raise InputError(f'{workdir} is no run folder ({reason}): give --workdir=runs/NAME') from error
    except InputError as error:
        raise InputError(f'{path} is damaged: {error}') from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f'{path} is damaged: {type(error).__name__} {error}') from error


def _load_preprocessing(workdir: pathlib.Path) -> str:
    """Loads how the images of a run were made squares; those of earlier versions know one way."""
    path = workdir / 'run.json'
    try:
        found = json.loads(path.read_text()).get('preprocessing', PAPER) if path.exists() else PAPER
        if found not in PREPROCESSINGS:
            raise ValueError(f'preprocessing {found!r}')
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f'{path} is damaged: {type(error).__name__} {error}') from error
    return found


def _load_classes(workdir: pathlib.Path, config: Config, outputs: int) -> tuple[str, ...]:
    """Loads the outputs' names: from the run, or for one of an earlier version from its dataset where that is there."""
    path = workdir / 'run.json'
    try:
        classes: Any = json.loads(path.read_text()).get('classes') if path.exists() else None
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f'{path} is damaged: {type(error).__name__} {error}') from error
    if classes is None:
        try:
            classes = open_dataset(config.dataset, data_dir=config.data_dir).classes
        except InputError:
            classes = [str(index) for index in range(outputs)]
    if len(classes) != outputs:
        raise InputError(f'{workdir} names {len(classes)} classes, and its network has {outputs} outputs')
    return tuple(classes)
