"""Makes what is diagnosed, in pieces: those of a config, or of a run folder where it stands.

Pieces, so that each can be another one than the config would make: the tests break them one at a time.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from jax.typing import DTypeLike

from alexnet_jax.checkpoints.manifest import FOLDER, DamagedError, read_manifest
from alexnet_jax.checkpoints.orbax_io import load_arrays
from alexnet_jax.data.augment import centre_crop
from alexnet_jax.data.dataset import Dataset
from alexnet_jax.data.pipeline import HostBatch
from alexnet_jax.errors import InputError
from alexnet_jax.logs.writers import iter_metrics
from alexnet_jax.model.spec import Variant
from alexnet_jax.run.batches import make_batches
from alexnet_jax.sharding.mesh import make_mesh, parameter_specs, shardings
from alexnet_jax.training.build import build_run
from alexnet_jax.training.config import MAX_STEPS, ONE_WEIRD_TRICK, Config
from alexnet_jax.training.schedule import LayerLRMultiplier, Plateau, Schedule
from alexnet_jax.training.state import TrainState, abstract_state


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A training run at one step.

    Attributes:
      name: what the user calls it.
      config: its settings, validated.
      dataset: name of the dataset.
      classes: number of classes.
      examples: images of the training split.
      variant, mesh, optimizer, schedule, lr_multipliers, dtype: as training has them, on a mesh of one replica.
      state: where it stands; the diagnosis uses it up.
      batches: called with a number of updates, gives the training batches from there on, on the host.
      history: the lines of its metrics.jsonl, oldest first.
      notes: what was noticed while it was opened.
    """

    name: str
    config: Config
    dataset: str
    classes: int
    examples: int
    variant: Variant
    mesh: Mesh
    optimizer: optax.GradientTransformationExtraArgs
    schedule: Schedule
    lr_multipliers: tuple[LayerLRMultiplier, ...]
    dtype: DTypeLike | None
    state: TrainState
    batches: Callable[[int], Iterator[HostBatch]]
    history: tuple[dict[str, Any], ...] = ()
    notes: tuple[str, ...] = ()


def get_mesh_shape(config: Config) -> tuple[int, int]:
    """Returns (1, tower): the config's mesh with one replica, which sees the whole batch."""
    return 1, config.mesh[1]


def make_snapshot(config: Config, dataset: Dataset, *, name: str) -> Snapshot:
    """Makes a snapshot of what `config` would train, before its first step."""
    mesh = make_mesh(*get_mesh_shape(config), one_weird_trick=config.parallelism == ONE_WEIRD_TRICK)
    run = build_run(config, num_classes=len(dataset.classes), examples=dataset.examples('train'), mesh=mesh)
    return Snapshot(
        name=name,
        config=config,
        dataset=dataset.name,
        classes=run.num_classes,
        examples=run.examples,
        variant=run.variant,
        mesh=mesh,
        optimizer=run.optimizer,
        schedule=run.schedule,
        lr_multipliers=run.lr_multipliers,
        dtype=run.dtype,
        state=run.create_state(np.asarray(centre_crop(dataset.mean_image, run.variant.input_size))),
        batches=lambda step: make_batches(run, dataset).read_from(step),
    )


def load_snapshot(workdir: pathlib.Path, config: Config, dataset: Dataset) -> Snapshot:
    """Loads the run in `workdir` with its newest whole checkpoint; nothing in the folder is touched.

    Raises:
      InputError: its checkpoints are of another network, or all damaged.
    """
    snapshot = make_snapshot(config, dataset, name=str(workdir))
    state, data_order, notes = _load_newest(workdir, snapshot)
    run = build_run(config, num_classes=snapshot.classes, examples=snapshot.examples, mesh=snapshot.mesh)
    return dataclasses.replace(
        snapshot,
        state=state,
        batches=lambda step: make_batches(run, dataset, data_order=data_order).read_from(step),
        history=tuple(entry for _, entry in iter_metrics(workdir / 'metrics.jsonl', MAX_STEPS)),
        notes=(*notes, *_compare_dataset(workdir, dataset)),
    )


def _load_newest(workdir: pathlib.Path, snapshot: Snapshot) -> tuple[TrainState, int, tuple[str, ...]]:
    """Loads the newest whole checkpoint: its state, the order of its data, and notes of what was damaged."""
    paths = [path for path in (workdir / FOLDER).glob('*') if path.name.isdigit()]
    notes: list[str] = []
    for path in sorted(paths, key=lambda path: -int(path.name)):
        try:
            tree, manifest = load_arrays(path), read_manifest(path)
        except DamagedError as error:
            notes.append(f'checkpoint {path.name} is damaged ({error}): an older one is looked at')
            continue
        return _place_state(tree, snapshot, path), manifest.data_order, tuple(notes)
    if paths:
        raise InputError(f'every checkpoint in {workdir / FOLDER} is damaged; diagnose its settings with --config=FILE')
    return snapshot.state, 0, ('it has no checkpoint yet: looked at before its first step',)


def _place_state(tree: dict[str, Any], snapshot: Snapshot, path: pathlib.Path) -> TrainState:
    like = abstract_state(snapshot.variant, snapshot.optimizer, snapshot.mesh, num_classes=snapshot.classes)
    shapes, expected = (jax.tree.map(lambda x: x.shape, params) for params in (tree['params'], like.params))
    if shapes != expected:
        raise InputError(f'checkpoint {path} is of another network than its config.json and dataset {snapshot.dataset}')
    state = TrainState(
        step=tree['step'],
        params=tree['params'],
        opt_state=optax.tree_utils.tree_set(like.opt_state, trace=tree['momentum']),
        plateau=Plateau(**tree['plateau']),
        mean_image=tree['mean_image'],
    )
    return jax.device_put(state, shardings(snapshot.mesh, parameter_specs(snapshot.mesh, state)))


def _compare_dataset(workdir: pathlib.Path, dataset: Dataset) -> tuple[str, ...]:
    try:
        before = json.loads((workdir / 'run.json').read_text())['identity']['dataset_fingerprint']
    except (OSError, ValueError, KeyError, TypeError):
        return ()
    if before == dataset.fingerprint:
        return ()
    return (f'dataset {dataset.name} is not the one that this run was trained on: prepared again since',)
