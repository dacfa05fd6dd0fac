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

from alexnet_jax.data.corrupted_files import CorruptedFiles
from alexnet_jax.data.dataset import Dataset, Source, open_dataset
from alexnet_jax.errors import InputError
from alexnet_jax.evaluation.evaluation_settings import ALL
from alexnet_jax.evaluation.evaluator import Evaluator, Predictions
from alexnet_jax.model.network import Network
from alexnet_jax.sharding.mesh import TOWER, batch_axes, parameter_specs, place, replicate
from alexnet_jax.training.build import get_model_dtype
from alexnet_jax.weights.class_names import (
    IMAGENET,
    are_numbers,
    find_classes,
    find_numbers,
    is_unnamed,
    name_classes,
    share_names,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkArgs:
    """Networks as flags name them.

    Attributes:
      workdir: run folders.
      weights: files of weights (weights.open_weights).
      step: of the runs, which checkpoint; None: the newest.
      classes: names of the outputs (weights.class_names); None: those that the networks have.
    """

    workdir: Sequence[str] = ()
    weights: Sequence[str] = ()
    step: int | None = None
    classes: str | None = None

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
        networks += [open_weights(pathlib.Path(path)) for path in self.weights]
        return [name_classes(network, self.classes) for network in networks]

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


def make_predictor(
    network: Network, mesh: Mesh, records: Source, *, batch_size: int, among: Sequence[int] | None = None
) -> Callable[..., Predictions]:
    """Makes predict(protocol=..., progress=None), which is `Evaluator.predict` of all images of `records`.

    `batch_size` counts the images of all devices together; `among` are the outputs that compete, None all.
    `InputError` as of `place_network`; predicting raises it where a record is damaged.
    """
    evaluator, placed = make_evaluator(network, mesh, records, batch_size=batch_size, among=among)
    return functools.partial(evaluator.predict, *placed)


def make_evaluator(
    network: Network, mesh: Mesh, records: Source, *, batch_size: int, among: Sequence[int] | None = None
) -> tuple[Evaluator, tuple[Any, Array]]:
    """Makes an evaluator of `records`, and what `Evaluator.predict` takes first; `InputError` as of `place_network`."""
    network.check_trained()
    placed = place_network(network, mesh, batch_size=batch_size)
    options: dict[str, Any] = {'num_classes': len(network.classes), 'dtype': get_dtype(network), 'among': among}
    return Evaluator(network.variant, mesh, records, batch_size=batch_size, **options), placed


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
      InputError: as of `open_dataset_for`, or the networks were trained on different ones or know other classes
        (`match_classes`).
    """
    trained_on = {network.about['config']['dataset'] for network in networks if 'config' in network.about}
    names = trained_on if name is None else {name}
    if not names:
        raise InputError('which dataset is not known of weights without a run: give --dataset=NAME')
    if len(names) > 1:
        raise InputError(f'the networks were trained on {", ".join(sorted(names))}: name one with --dataset')
    dataset = open_dataset_for(networks, names.pop(), data_dir=data_dir)
    mappings = [match_classes(network, dataset) for network in networks]
    if any(mapping != mappings[0] for mapping in mappings):
        raise InputError('the networks have the classes of the dataset at different outputs: test them one by one')
    return dataset


def match_classes(network: Network, dataset: Dataset | CorruptedFiles) -> list[int] | None:
    """Finds the output of `network` for each class of `dataset`; None: they are the same, in the same order.

    Names that are equal decide, or synsets, or synonyms. Names that are all numbers, 0 among them, are numbers of
    outputs that have names, as ImageNetV2's folders are. As many classes of which none has the name of another are
    taken to be the same, as 'tench' for 'n01440764', and so are those of weights that name none.

    Raises:
      InputError: a class of the dataset is none of the network's, or the classes are numbers in another order than that
        of the numbers, which may say the outputs or may not.
    """
    own, others = network.classes, dataset.classes
    unnamed = is_unnamed(own)
    if own == others:
        return None
    found = None if unnamed else find_classes(others, own) or find_numbers(others, len(own))
    if found is not None:
        return None if found == list(range(len(own))) else found
    if are_numbers(others) and list(map(int, others)) != sorted(map(int, others)):
        raise InputError(
            f'the classes of {dataset.name} are numbers, in the order {", ".join(others[:3])}, ..., and those of '
            f'{network.source} are not: name its outputs with --classes=FILE, for ImageNetV2 --classes={IMAGENET}'
        )
    if unnamed and len(own) == len(others):
        return None
    if len(own) == len(others) and not share_names(others, own):
        return None
    if unnamed:
        raise InputError(
            f'{network.source} has {len(own)} outputs without names and dataset {dataset.name} has {len(others)} '
            f'classes ({others[0]}, ...): name the outputs with --classes=FILE, or --classes={IMAGENET}'
        )
    differing = next((f'{a}, not {b}' for a, b in zip(own, others, strict=False) if a != b), 'more of them')
    raise InputError(
        f'{network.source} knows {len(own)} classes and dataset {dataset.name} has {len(others)}, which are not '
        f'the same ({differing}): give another --dataset, or the names of its outputs with --classes=FILE'
    )


def list_remarks(networks: Sequence[Network], dataset: Dataset | CorruptedFiles, *, among: str = ALL) -> list[str]:
    """Lists what a person should know of how `networks` and `dataset` fit; `among` as of `EvaluationSettings`."""
    compete = 'all of its classes compete' if among == ALL else 'they alone compete'
    remarks = []
    for network in networks:
        own, others = network.classes, dataset.classes
        if (mapping := match_classes(network, dataset)) is not None:
            remarks.append(
                f'{network.source} has {len(own)} classes: those of {dataset.name} ({others[0]}, ...) are its outputs '
                f'{", ".join(map(str, mapping[:3]))}{", ..." * (len(mapping) > 3)}, by name; {compete}'
            )
        elif is_unnamed(own) and own != others:
            remarks.append(
                f'{network.source} does not name its classes: taken to be those of {dataset.name} ({others[0]}, ...), '
                'in the same order; --classes=FILE names them'
            )
        elif own != others and find_classes(others, own) is None:
            remarks.append(
                f'{network.source} names its classes otherwise ({own[0]}, ...) than {dataset.name} ({others[0]}, ...): '
                'taken to be the same, in the same order'
            )
    return remarks
