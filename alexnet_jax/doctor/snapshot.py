"""Makes what is diagnosed, in pieces: those of a config, or of a run folder where it stands.

Pieces, so that each can be another one than the config would make: the tests break them one at a time.
"""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import optax

from alexnet_jax.checkpoints.manifest import FOLDER, DamagedError, read_manifest
from alexnet_jax.checkpoints.orbax_io import load_arrays
from alexnet_jax.data.dataset import Dataset
from alexnet_jax.data.pipeline import HostBatch
from alexnet_jax.errors import InputError
from alexnet_jax.logs.writers import iter_metrics
from alexnet_jax.run.batches import make_batches
from alexnet_jax.run.init_from import create_state, load_initial_weights
from alexnet_jax.run.run_dir import check_initial
from alexnet_jax.sharding.mesh import make_mesh, parameter_specs, shardings
from alexnet_jax.training.build import Run, build_run
from alexnet_jax.training.config import ONE_WEIRD_TRICK, Config
from alexnet_jax.training.config_rules import MAX_STEPS
from alexnet_jax.training.schedule import Plateau
from alexnet_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A training run at one step."""

    name: str  # what the user calls it
    run: Run  # on a mesh of one replica, which sees the whole batch
    state: TrainState  # the diagnosis uses it up
    batches: Callable[[int], Iterator[HostBatch]]  # the training batches after so many updates, on the host
    history: tuple[dict[str, Any], ...] = ()  # the lines of its metrics.jsonl, oldest first
    notes: tuple[str, ...] = ()  # what was noticed while it was opened


def make_snapshot(config: Config, dataset: Dataset, *, name: str) -> Snapshot:
    """Makes a snapshot of what `config` would train, before its first step."""
    run = _build_replica(config, dataset)
    return Snapshot(name, run, create_state(run, dataset), make_batches(run, dataset).read_from)


def load_snapshot(workdir: pathlib.Path, config: Config, dataset: Dataset) -> Snapshot:
    """Loads the run in `workdir` with its newest whole checkpoint; nothing in the folder is touched.

    Raises:
      InputError: its checkpoints are of another network, or all damaged; or it has none, and what it began from has
        changed.
    """
    run = _build_replica(config, dataset)
    paths = [path for path in (workdir / FOLDER).glob('*') if path.name.isdigit()]
    notes: list[str] = []
    for path in sorted(paths, key=lambda path: -int(path.name)):
        try:
            tree, data_order = load_arrays(path), read_manifest(path).data_order
        except DamagedError as error:
            notes.append(f'checkpoint {path.name} is damaged ({error}): an older one is looked at')
            continue
        state = _place_state(tree, run, path)
        break
    else:
        if paths:
            remedy = 'diagnose its settings with --config=FILE'
            raise InputError(f'every checkpoint in {workdir / FOLDER} is damaged; {remedy}')
        initial = load_initial_weights(run, dataset)
        if initial is not None:
            check_initial(workdir, initial.report)
        state, data_order = create_state(run, dataset, initial), 0
        notes.append('it has no checkpoint yet: looked at before its first step')
    return Snapshot(
        name=str(workdir),
        run=run,
        state=state,
        batches=make_batches(run, dataset, data_order=data_order).read_from,
        history=tuple(entry for _, entry in iter_metrics(workdir / 'metrics.jsonl', MAX_STEPS)),
        notes=(*notes, *_compare_dataset(workdir, dataset)),
    )


def _build_replica(config: Config, dataset: Dataset) -> Run:
    """Builds the config's run on one replica, which sees the whole batch."""
    mesh = make_mesh(1, config.mesh[1], one_weird_trick=config.parallelism == ONE_WEIRD_TRICK)
    return build_run(config, num_classes=len(dataset.classes), examples=dataset.examples('train'), mesh=mesh)


def _place_state(tree: dict[str, Any], run: Run, path: pathlib.Path) -> TrainState:
    like = run.abstract_state()
    shapes, expected = (jax.tree.map(lambda x: x.shape, params) for params in (tree['params'], like.params))
    if shapes != expected:
        dataset = run.config.dataset
        raise InputError(f'checkpoint {path} is of another network than its config.json and dataset {dataset}')
    state = TrainState(
        step=tree['step'],
        params=tree['params'],
        opt_state=optax.tree_utils.tree_set(like.opt_state, trace=tree['momentum']),
        plateau=Plateau(**tree['plateau']),
        mean_image=tree['mean_image'],
    )
    return jax.device_put(state, shardings(run.mesh, parameter_specs(run.mesh, state)))


def _compare_dataset(workdir: pathlib.Path, dataset: Dataset) -> tuple[str, ...]:
    try:
        before = json.loads((workdir / 'run.json').read_text())['identity']['dataset_fingerprint']
    except (OSError, ValueError, KeyError, TypeError):
        return ()
    if before == dataset.fingerprint:
        return ()
    return (f'dataset {dataset.name} is not the one that this run was trained on: prepared again since',)
