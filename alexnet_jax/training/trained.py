"""The network that a run has trained, read from its folder."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import jax
import ml_collections
import numpy as np

from alexnet_jax import InputError
from alexnet_jax.data.source import open_dataset
from alexnet_jax.model.alexnet import parameter_shapes
from alexnet_jax.model.network import Network, NetworkName
from alexnet_jax.training.config import recipe
from alexnet_jax.training.digests import tree_hash
from alexnet_jax.training.inspection import load, newest_step
from alexnet_jax.training.seal import Damaged


def load_network(workdir: pathlib.Path, *, step: int | None = None) -> Network:
    """The network of a run folder, verified against its hashes; `about` holds 'step', 'params_sha256' and 'config'.

    Args:
      workdir: the run folder.
      step: which checkpoint; None: the newest.

    Raises:
      InputError: there is no such checkpoint, or it is damaged.
    """
    path = newest_step(workdir, step)
    config = load_config(workdir)
    try:
        tree = load(path)
    except Damaged as error:
        raise InputError(f'checkpoint {path} is damaged: {error}; name another with --step') from error
    params = jax.tree.map(np.asarray, tree['params'])
    name = NetworkName(config.variant, config.width, tuple(sorted({*config.without} - {'lighting', 'crops', 'flips'})))
    outputs = params['fc8']['bias'].size
    wanted = jax.tree.map(lambda leaf: leaf.shape, parameter_shapes(name.build(), num_classes=outputs))
    found = jax.tree.map(lambda leaf: leaf.shape, params)
    if found != wanted:
        raise InputError(f'{path} does not hold the network that {workdir / "config.json"} names')
    return Network(
        name=name,
        params=params,
        mean_image=np.asarray(tree['mean_image']),
        classes=_classes(workdir, config, outputs),
        source=f'{workdir}, step {path.name}',
        about={
            'step': int(path.name),
            'params_sha256': tree_hash(tree['params']),
            'config': json.loads(json.dumps(config.to_dict())),
        },
    )


def load_config(workdir: pathlib.Path) -> ml_collections.ConfigDict:
    """The config of a run folder; what runs of earlier versions do not name has today's defaults.

    Raises:
      InputError: there is none.
    """
    path = workdir / 'config.json'
    try:
        settings = json.loads(path.read_text())
        config = recipe(settings['dataset'], parallelism=settings.get('parallelism', 'two_device'))
        for key in set(settings) & set(config):
            value = settings[key]
            with config.ignore_type():
                config[key] = tuple(value) if isinstance(value, list) else value
    except OSError as error:
        raise InputError(
            f'{workdir} is no run folder ({path.name}: {error.strerror}): give --workdir=runs/NAME'
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f'{path} is damaged: {type(error).__name__} {error}') from error
    return config


def _classes(workdir: pathlib.Path, config: ml_collections.ConfigDict, outputs: int) -> tuple[str, ...]:
    """Names of the outputs: from the run, or for one of an earlier version from its dataset, if that is still there."""
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
