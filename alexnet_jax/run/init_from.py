"""Starts a run from weights that somebody trained: takes the layers that fit, and says of each where it comes from."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from alexnet_jax.checkpoints.checkpointer import Checkpointer
from alexnet_jax.checkpoints.hashes import hash_tree
from alexnet_jax.checkpoints.inspect import find_best_step
from alexnet_jax.checkpoints.load import load_network
from alexnet_jax.console import align_columns
from alexnet_jax.data.augment import centre_crop
from alexnet_jax.data.dataset import Dataset
from alexnet_jax.distributed.hosts import check_same_on_hosts
from alexnet_jax.errors import InputError
from alexnet_jax.evaluation.open_networks import match_classes
from alexnet_jax.files import hash_file
from alexnet_jax.model.alexnet import get_parameter_shapes
from alexnet_jax.model.network import Network
from alexnet_jax.training.build import Run, get_network_name
from alexnet_jax.training.state import TrainState
from alexnet_jax.weights.class_names import find_classes, is_unnamed
from alexnet_jax.weights.layout import flatten, format_name
from alexnet_jax.weights.open_weights import open_weights

CLASSIFIER = 'fc8'


@dataclasses.dataclass(frozen=True, kw_only=True)
class InitialWeights:
    """What a run starts from in place of noise.

    Attributes:
      params: {layer: {'kernel', 'bias'}} of the layers that are taken.
      mean_image: float32 (mean_size, mean_size, 3), 0..255.
      report: what goes into run.json: origin and hashes, and in 'layers' and 'mean_image' what came from where.
    """

    params: dict[str, dict[str, np.ndarray]]
    mean_image: np.ndarray
    report: dict[str, Any]

    def format_report(self) -> str:
        """Formats the report for the person who starts the run, a line a layer."""
        parts = self.report['layers'] | {'mean': self.report['mean_image']}
        rows = [[f'  {name}', text] for name, text in parts.items()]
        origin = f'{self.report["init_from"]} ({self.report["network"]}, {self.report["source"]})'
        return f'starting from {origin}:\n{align_columns(rows)}'


def load_initial_weights(run: Run, dataset: Dataset) -> InitialWeights | None:
    """Loads what `run.config.init_from` names, the same in every process; None where the run starts from noise.

    Raises:
      InputError: it cannot be read, is of another network, or lacks a class that is to be kept.
    """
    config = run.config
    if not config.init_from:
        return None
    network, found = _open_source(config.init_from, config.init_step)
    _check_network(run, network)
    layers, params = {}, {}
    for layer, leaves in network.params.items():
        if layer in network.untrained:
            layers[layer] = 'made anew: the source has none'
        elif layer == CLASSIFIER:
            columns, layers[layer] = _choose_classes(network, dataset, keep=config.classes == 'keep')
            if columns is not None:
                params[layer] = {name: np.ascontiguousarray(array[..., columns]) for name, array in leaves.items()}
        else:
            layers[layer] = f'taken, {"x".join(map(str, leaves["kernel"].shape))}'
            params[layer] = leaves
    mean_image, mean_text = _choose_mean(run, dataset, network)
    hashes = found | {'params_sha256': hash_tree(network.params)}
    check_same_on_hosts(hashes, remedy='give all the same --config.init_from')
    origin = {'init_from': config.init_from, 'network': format_name(network.name), 'source': network.source}
    return InitialWeights(
        params=params, mean_image=mean_image, report=origin | hashes | {'layers': layers, 'mean_image': mean_text}
    )


def create_state(run: Run, dataset: Dataset, initial: InitialWeights | None = None) -> TrainState:
    """Creates the state before the first update; what `init_from` names is loaded where `initial` is None."""
    initial = initial or load_initial_weights(run, dataset)
    if initial is None:
        return run.create_state(np.asarray(centre_crop(dataset.mean_image, run.variant.mean_size)))
    return run.create_state(initial.mean_image, initial.params)


def restore_or_init(
    run: Run, create: Callable[[], TrainState], checkpointer: Checkpointer
) -> tuple[TrainState, int, bool]:
    """Restores the newest whole checkpoint's state, or creates the one before the first update.

    Returns:
      (the state, its data order, see `Manifest`, whether it was tested).

    Raises:
      InputError: there are checkpoints, and all are damaged; they are set aside now.
    """
    if found := checkpointer.restore_newest(run.abstract_state()):
        state, manifest = found
        return state, manifest.data_order, manifest.tested
    return create(), 0, True


def _open_source(source: str, step: int | None) -> tuple[Network, dict[str, str]]:
    """Opens a run folder or anything that `open_weights` does; with {'file_sha256'} of a file."""
    path = pathlib.Path(source)
    try:
        if (path / 'config.json').is_file():
            return load_network(path, step=find_best_step(path) if step is None else step), {}
        network = open_weights(path)
        found = network.about.get('file_sha256') or hash_file(path)
    except InputError as error:
        raise InputError(f'config.init_from: {error}') from error
    if step is not None:
        raise InputError(f'config.init_step is {step}, and {source} is no run folder, so has one state: leave it out')
    return network, {'file_sha256': found}


def _check_network(run: Run, network: Network) -> None:
    """Checks that the weights are of the run's network: of another, those that fit would give plausible numbers too."""
    own, other = get_network_name(run.config), network.name
    if own == dataclasses.replace(other, without=tuple(sorted(other.without))):
        return
    shapes = (flatten(get_parameter_shapes(name.build(), num_classes=run.num_classes)) for name in (own, other))
    here, there = ({path: leaf.shape for path, leaf in each.items() if path.endswith('kernel')} for each in shapes)
    apart = next((path for path in here | there if here.get(path) != there.get(path)), None)
    differing = 'the layers fit, and compute otherwise'
    if apart is not None:
        differing = f'{apart} is {there.get(apart)} there and {here.get(apart)} here'
    options = {'variant': other.variant, 'width': f'{other.width:g}'} | (
        {'without': ','.join(other.without)} if other.without or own.without else {}
    )
    options |= {'activation': other.activation} if other.activation or own.activation else {}
    raise InputError(
        f'config.init_from: {run.config.init_from} is {format_name(other)}, and this run is {format_name(own)} '
        f'({differing}): use {" ".join(f"--config.{key}={value}" for key, value in options.items())}'
    )


def _choose_classes(network: Network, dataset: Dataset, *, keep: bool) -> tuple[list[int] | None, str]:
    """Chooses the classifier's outputs in the order of the dataset's classes, None: none, with a text that says why."""
    own, wanted = network.classes, dataset.classes
    everything = list(range(len(own)))
    if keep:
        found = match_classes(network, dataset)
        if found is None:
            return everything, f'taken, its {len(own)} classes in their order'
        return found, f'taken, {len(found)} of its {len(own)} classes by name'
    found = everything if own == wanted else None if is_unnamed(own) else find_classes(wanted, own)
    if found is not None and len(found) == len(own):
        return found, f'taken, the same {len(own)} classes'
    return None, f'made anew for the {len(wanted)} classes of {dataset.name}, in place of {len(own)}'


def _choose_mean(run: Run, dataset: Dataset, network: Network) -> tuple[np.ndarray, str]:
    size, given = run.variant.mean_size, network.mean_image
    own = np.asarray(centre_crop(dataset.mean_image, size))
    if run.config.init_mean == 'source':
        if len(given) < size:
            raise InputError(
                f'config.init_from: {run.config.init_from} has a mean image for all crops, and this run one for each '
                f'place: use --config.mean_at=centre or --config.init_mean=dataset'
            )
        return np.asarray(centre_crop(given, size), np.float32), 'of the source'
    shared = min(size, len(given))
    apart = float(np.abs(centre_crop(own, shared) - centre_crop(given, shared)).max())
    return own, f'of {dataset.name}; WARNING: the weights were trained with another, up to {apart:.1f} of 255 away'
