"""Opens what a user names on the command line of evaluate, predict and features: networks and datasets."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

from jax.typing import DTypeLike

from alexnet_jax.data.dataset import Dataset, open_dataset
from alexnet_jax.errors import InputError
from alexnet_jax.model.network import Network
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
        """All of them, the runs first.

        Raises:
          InputError: there are none, or one cannot be read.
        """
        if not self.workdir and not self.weights:
            raise InputError('no network is named: give --workdir=runs/NAME, or --weights=FILE')
        if self.step is not None and not self.workdir:
            raise InputError('--step is for --workdir: a file of weights has one state')
        from alexnet_jax.checkpoints.load import load_network

        found = [load_network(pathlib.Path(workdir), step=self.step) for workdir in self.workdir]
        if self.weights:
            from alexnet_jax.weights.open_weights import open_weights

            found += [open_weights(pathlib.Path(path)) for path in self.weights]
        return found

    def open_one(self) -> Network:
        """The only one; `InputError` where there are more."""
        if len(self.workdir) + len(self.weights) > 1:
            raise InputError('several networks are named, and one is wanted: give one --workdir or one --weights')
        return self.open()[0]


def open_test_dataset(networks: Sequence[Network], *, name: str | None, data_dir: str | None) -> Dataset:
    """The dataset called `name`, or where that is None the one that all `networks` were trained on.

    Raises:
      InputError: it is not prepared, they were trained on different ones, or their classes or records are not its.
    """
    configs = [network.about['config'] for network in networks if 'config' in network.about]
    names = {config['dataset'] for config in configs} if name is None else {name}
    if not names:
        raise InputError('which dataset is not known of weights without a run: give --dataset=NAME')
    if len(names) > 1:
        raise InputError(f'the networks were trained on {", ".join(sorted(names))}: name one with --dataset')
    folder = data_dir or next((config['data_dir'] for config in configs), 'data')
    dataset = open_dataset(names.pop(), data_dir=folder)
    for network in networks:
        _check_classes(network, dataset.check_variant(network.variant))
    return dataset


def _check_classes(network: Network, dataset: Dataset) -> None:
    """The same names in the same order, or as many of which none is the same: 'tench' for 'n01440764'."""
    own, others = network.classes, dataset.classes
    if len(own) != len(others) or (own != others and set(own) & set(others)):
        differing = next((f'{a}, not {b}' for a, b in zip(own, others, strict=False) if a != b), 'more of them')
        raise InputError(
            f'{network.source} knows {len(own)} classes and dataset {dataset.name} has {len(others)}, which are not '
            f'the same ({differing}): give another --dataset'
        )


def list_remarks(networks: Sequence[Network], dataset: Dataset) -> list[str]:
    """What a person should know of how `networks` and `dataset` fit."""
    return [
        f'{network.source} names its classes otherwise ({network.classes[0]}, ...) than {dataset.name} '
        f'({dataset.classes[0]}, ...): taken to be the same, in the same order'
        for network in networks
        if network.classes != dataset.classes
    ]


def get_dtype(network: Network) -> DTypeLike | None:
    """The dtype in which a network computes: that of its run; float32 (None) where it has none."""
    config = network.about.get('config')
    return None if config is None else get_model_dtype(config['precision'])


def get_batch_size(networks: Sequence[Network]) -> int:
    """How many images at once where nobody says: as the first run does in its own tests."""
    return next((n.about['config']['batch_size'] for n in networks if 'config' in n.about), 128)
