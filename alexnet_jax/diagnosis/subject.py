"""What is diagnosed, as pieces: those of a config, or of a run folder where it stands.

Pieces, so that each can be another one than the config would make: that is how the tests break them one at a time.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import ml_collections
import numpy as np
import optax
from jax.sharding import Mesh
from jax.typing import DTypeLike

from alexnet_jax import InputError
from alexnet_jax.data.augment import centre_crop
from alexnet_jax.data.pipeline import HostBatch
from alexnet_jax.data.source import Dataset
from alexnet_jax.model.variants import Variant
from alexnet_jax.parallel.mesh import make_mesh, parameter_specs, shardings
from alexnet_jax.training import config as configs
from alexnet_jax.training.batches import batches_of
from alexnet_jax.training.checkpoint import FOLDER
from alexnet_jax.training.inspection import load
from alexnet_jax.training.recipe import dtype_of, layer_factors_of, optimizer_of, schedule_of, variant_of
from alexnet_jax.training.records import lines_until
from alexnet_jax.training.schedule import LayerFactor, Plateau, Schedule
from alexnet_jax.training.seal import Damaged, read_seal
from alexnet_jax.training.state import TrainState, abstract_state, create_state
from alexnet_jax.training.trained import load_config


@dataclasses.dataclass(frozen=True)
class Subject:
    """A training run at one step.

    Attributes:
      name: what the user calls it.
      config: its settings, validated.
      dataset: name of the dataset.
      classes: number of classes.
      examples: images of the training split.
      variant, mesh, optimizer, schedule, slowed, dtype: as training has them, on a mesh of one replica.
      state: where it stands; the diagnosis uses it up.
      batches: called with a number of updates, gives the training batches from there on, on the host.
      history: the lines of its metrics.jsonl, oldest first.
      notes: what was noticed while it was opened.
    """

    name: str
    config: ml_collections.ConfigDict
    dataset: str
    classes: int
    examples: int
    variant: Variant
    mesh: Mesh
    optimizer: optax.GradientTransformationExtraArgs
    schedule: Schedule
    slowed: tuple[LayerFactor, ...]
    dtype: DTypeLike | None
    state: TrainState
    batches: Callable[[int], Iterator[HostBatch]]
    history: tuple[dict[str, Any], ...] = ()
    notes: tuple[str, ...] = ()


def mesh_shape(config: ml_collections.ConfigDict) -> tuple[int, int]:
    """(1, tower): the config's mesh with one replica, which sees the whole batch."""
    return 1, config.mesh[1]


def of_config(config: ml_collections.ConfigDict, dataset: Dataset, *, name: str) -> Subject:
    """What `config`, which is validated, would train, before its first step."""
    variant, optimizer = variant_of(config), optimizer_of(config)
    mesh = make_mesh(*mesh_shape(config), one_weird_trick=config.parallelism == configs.ONE_WEIRD_TRICK)
    state = create_state(
        variant,
        optimizer,
        mesh,
        num_classes=len(dataset.classes),
        mean_image=np.asarray(centre_crop(dataset.mean_image, variant.input_size)),
        seed=config.seed,
    )
    return Subject(
        name=name,
        config=config,
        dataset=dataset.name,
        classes=len(dataset.classes),
        examples=dataset.examples('train'),
        variant=variant,
        mesh=mesh,
        optimizer=optimizer,
        schedule=schedule_of(config, examples=dataset.examples('train')),
        slowed=layer_factors_of(config, examples=dataset.examples('train')),
        dtype=dtype_of(config),
        state=state,
        batches=lambda step: batches_of(config, dataset).read_from(step),
    )


def config_of(workdir: pathlib.Path) -> ml_collections.ConfigDict:
    """The settings of a run folder, validated; `InputError` where it holds none, or they are damaged."""
    config = load_config(workdir)
    configs.validate(config)
    return config


def of_workdir(workdir: pathlib.Path, config: ml_collections.ConfigDict, dataset: Dataset) -> Subject:
    """The run in `workdir` with its newest whole checkpoint; nothing in the folder is touched.

    Raises:
      InputError: its checkpoints are of another network, or all damaged.
    """
    subject = of_config(config, dataset, name=str(workdir))
    state, data_order, notes = _newest(workdir, subject)
    return dataclasses.replace(
        subject,
        state=state,
        batches=lambda step: batches_of(config, dataset, data_order=data_order).read_from(step),
        history=tuple(entry for _, entry in lines_until(workdir / 'metrics.jsonl', configs.MOST_STEPS)),
        notes=(*notes, *_other_dataset(workdir, dataset)),
    )


def _newest(workdir: pathlib.Path, subject: Subject) -> tuple[TrainState, int, tuple[str, ...]]:
    """The newest whole checkpoint's state, the order of its data, and what was damaged."""
    paths = [path for path in (workdir / FOLDER).glob('*') if path.name.isdigit()]
    notes: list[str] = []
    for path in sorted(paths, key=lambda path: -int(path.name)):
        try:
            tree, seal = load(path), read_seal(path)
        except Damaged as error:
            notes.append(f'checkpoint {path.name} is damaged ({error}): an older one is looked at')
            continue
        return _placed(tree, subject, path), seal.data_order, tuple(notes)
    if paths:
        raise InputError(f'every checkpoint in {workdir / FOLDER} is damaged; diagnose its settings with --config=FILE')
    return subject.state, 0, ('it has no checkpoint yet: looked at before its first step',)


def _placed(tree: dict[str, Any], subject: Subject, path: pathlib.Path) -> TrainState:
    like = abstract_state(subject.variant, subject.optimizer, subject.mesh, num_classes=subject.classes)
    found, wanted = (jax.tree.map(lambda x: x.shape, params) for params in (tree['params'], like.params))
    if found != wanted:
        raise InputError(f'checkpoint {path} is of another network than its config.json and dataset {subject.dataset}')
    state = TrainState(
        step=tree['step'],
        params=tree['params'],
        opt_state=optax.tree_utils.tree_set(like.opt_state, trace=tree['momentum']),
        plateau=Plateau(**tree['plateau']),
        mean_image=tree['mean_image'],
    )
    return jax.device_put(state, shardings(subject.mesh, parameter_specs(subject.mesh, state)))


def _other_dataset(workdir: pathlib.Path, dataset: Dataset) -> tuple[str, ...]:
    try:
        before = json.loads((workdir / 'run.json').read_text())['identity']['dataset_fingerprint']
    except (OSError, ValueError, KeyError, TypeError):
        return ()
    same = before == dataset.fingerprint
    return (
        () if same else (f'dataset {dataset.name} is not the one that this run was trained on: prepared again since',)
    )
