"""Opens the networks and datasets that a command line names, and puts a network on a mesh."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax import Array
from jax.sharding import Mesh
from jax.typing import DTypeLike

from alexnet_jax.data.dataset import Dataset, DataSource, open_dataset
from alexnet_jax.errors import InputError
from alexnet_jax.evaluation.evaluator import Evaluator, Predictions
from alexnet_jax.model.network import Network
from alexnet_jax.sharding.mesh import TOWER, batch_axes, parameter_specs, place, replicate
from alexnet_jax.training.build import get_model_dtype


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkArgs:
    """Networks as flags name them.

    Attributes:
      workdir: run folders.
      weights: files of weights (weights.open_weights).
      step: of the runs, which checkpoint; None: the newest.
    """

    workdir: Sequence[str] = ()
    weights: Sequence[str] = ()
    step: int | None = None

    def open(self) -> list[Network]:
        """Opens all of them, the runs first; `InputError` where there are none, or one cannot be read."""
        if not self.workdir and not self.weights:
            raise InputError('no network is named: give --workdir=runs/NAME, or --weights=FILE')
        if self.step is not None and not self.workdir:
            raise InputError('--step is for --workdir: a file of weights has one state')
        # Here, because Orbax takes a second to load, and the readers of foreign formats are rarely asked for.
        from alexnet_jax.checkpoints.load import load_network
        from alexnet_jax.weights.open_weights import open_weights

        networks = [load_network(pathlib.Path(workdir), step=self.step) for workdir in self.workdir]
        return networks + [open_weights(pathlib.Path(path)) for path in self.weights]

    def open_one(self) -> Network:
        """Opens the only one; `InputError` where there are more."""
        if len(self.workdir) + len(self.weights) > 1:
            raise InputError('several networks are named, and one is wanted: give one --workdir or one --weights')
        return self.open()[0]


def get_dtype(network: Network) -> DTypeLike | None:
    """Returns the dtype in which a network computes: that of its run; float32 (None) where it has none."""
    config = network.about.get('config')
    return None if config is None else get_model_dtype(config['precision'])


def get_batch_size(networks: Sequence[Network]) -> int:
    """Returns how many images to compute at once where nobody says: as many as the first run in its own tests."""
    return next((n.about['config']['batch_size'] for n in networks if 'config' in n.about), 128)


def place_network(network: Network, mesh: Mesh, *, batch_size: int) -> tuple[Any, Array]:
    """Puts a network's parameters and mean image on `mesh`.

    Raises:
      InputError: the devices of `mesh` cannot share the network, or a batch.
    """
    if mesh.shape.get(TOWER, 1) > 1 and not network.variant.divisible:
        raise InputError(
            f'{network.source} is a {network.variant.name}, which has no two towers that could live apart: use '
            f'--mesh={mesh.devices.shape[0]},1'
        )
    parts = int(np.prod([mesh.shape[axis] for axis in batch_axes(mesh)]))
    if batch_size < 1 or batch_size % parts:
        raise InputError(f'a batch of {batch_size} does not divide over {parts} devices: use a multiple of {parts}')
    params = place(mesh, network.params, parameter_specs(mesh, network.params))
    return params, replicate(mesh, network.mean_image)


def make_predictor(network: Network, mesh: Mesh, records: DataSource, *, batch_size: int) -> Callable[..., Predictions]:
    """Makes predict(protocol=..., progress=None), which is `Evaluator.predict` of all images of `records`.

    `batch_size` counts the images of all devices together. `InputError` as of `place_network`; predicting raises it
    where a record is damaged.
    """
    placed = place_network(network, mesh, batch_size=batch_size)
    options: dict[str, Any] = {'num_classes': len(network.classes), 'dtype': get_dtype(network)}
    evaluator = Evaluator(network.variant, mesh, records, batch_size=batch_size, **options)
    return functools.partial(evaluator.predict, *placed)


def open_dataset_for(networks: Sequence[Network], name: str, *, data_dir: str | None) -> Dataset:
    """Opens dataset `name` in `data_dir`, or where that is None in the first run's.

    Raises:
      InputError: it is not prepared, or one of `networks` reads records of another size.
    """
    configs = [network.about['config'] for network in networks if 'config' in network.about]
    dataset = open_dataset(name, data_dir=data_dir or next((config['data_dir'] for config in configs), 'data'))
    for network in networks:
        dataset.check_variant(network.variant)
    return dataset


def open_test_dataset(networks: Sequence[Network], *, name: str | None, data_dir: str | None) -> Dataset:
    """Opens dataset `name`, or where that is None the one that all `networks` were trained on.

    Raises:
      InputError: as of `open_dataset_for`, or the networks were trained on different ones or know other classes.
    """
    trained_on = {network.about['config']['dataset'] for network in networks if 'config' in network.about}
    names = trained_on if name is None else {name}
    if not names:
        raise InputError('which dataset is not known of weights without a run: give --dataset=NAME')
    if len(names) > 1:
        raise InputError(f'the networks were trained on {", ".join(sorted(names))}: name one with --dataset')
    dataset = open_dataset_for(networks, names.pop(), data_dir=data_dir)
    for network in networks:
        _check_classes(network, dataset)
    return dataset


def _check_classes(network: Network, dataset: Dataset) -> None:
    """Takes the same names in the same order, or as many of which none is the same: 'tench' for 'n01440764'."""
    own, others = network.classes, dataset.classes
    if len(own) != len(others) or (own != others and set(own) & set(others)):
        differing = next((f'{a}, not {b}' for a, b in zip(own, others, strict=False) if a != b), 'more of them')
        raise InputError(
            f'{network.source} knows {len(own)} classes and dataset {dataset.name} has {len(others)}, which are not '
            f'the same ({differing}): give another --dataset'
        )


def list_remarks(networks: Sequence[Network], dataset: Dataset) -> list[str]:
    """Lists what a person should know of how `networks` and `dataset` fit."""
    return [
        f'{network.source} names its classes otherwise ({network.classes[0]}, ...) than {dataset.name} '
        f'({dataset.classes[0]}, ...): taken to be the same, in the same order'
        for network in networks
        if network.classes != dataset.classes
    ]
