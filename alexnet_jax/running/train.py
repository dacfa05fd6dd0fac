"""Wires a training run: the processes, the mesh, the dataset, the folder, the test, and then the loop."""

from __future__ import annotations

import contextlib
import hashlib
import pathlib
from typing import Any

import ml_collections

import alexnet_jax
from alexnet_jax import InputError
from alexnet_jax.data.source import Dataset
from alexnet_jax.evaluation.evaluate import Evaluator
from alexnet_jax.parallel.devices import prepare_backend
from alexnet_jax.parallel.processes import Group, agree, gather, join, table
from alexnet_jax.running.ending import Ending
from alexnet_jax.training import loop, tracking
from alexnet_jax.training import workdir as folders
from alexnet_jax.training.digests import digest_of_json
from alexnet_jax.training.interruption import Interruption
from alexnet_jax.training.logbook import to_stderr
from alexnet_jax.training.recipe import dtype_of, mesh_of, variant_of
from alexnet_jax.training.startup import StartUp


def train(
    config: ml_collections.ConfigDict,
    *,
    workdir: pathlib.Path,
    group: Group,
    heartbeat: int,
    join_timeout: float,
    ending: Ending,
    start_up: StartUp,
) -> dict[str, Any]:
    """Trains as `config`, which is validated, says, together with the other processes of `group`.

    Returns:
      What `training.loop.run` does.

    Raises:
      InputError: what the user gave cannot be used.
      Interrupted: the run was told to stop, and saved.
    """
    start_up.lap('imports')
    prepare_backend(config.mesh, processes=group.count, deterministic=config.deterministic)
    with Interruption(to_stderr, processes=group.count) as interruption, contextlib.ExitStack() as held:
        ending.prepare(group, timeout=join_timeout)
        group = join(group, heartbeat=heartbeat, timeout=join_timeout)
        ending.watch(group, heartbeat=heartbeat)
        interruption.meet()
        if group.index == 0:
            tracking.check(config.tracking)
        mesh = mesh_of(config)
        if group.count > 1 and (text := table(mesh, group, heartbeat=heartbeat)) and group.index == 0:
            to_stderr(text)
        start_up.lap('devices')
        dataset = _open_in_turn(config, group)
        if group.index == 0:
            folders.check(workdir, config, dataset)  # before the lock: what is another's is left as it is
            held.enter_context(folders.alone(workdir))
            folders.claim(workdir, config, dataset, mesh)
        _prove_same(config, dataset, workdir, group)
        evaluate = Evaluator(
            variant_of(config),
            mesh,
            dataset.records('validation'),
            num_classes=len(dataset.classes),
            batch_size=config.batch_size,
            dtype=dtype_of(config),
        )
        start_up.lap('dataset')
        result = loop.run(
            config,
            dataset=dataset,
            mesh=mesh,
            evaluate=evaluate,
            workdir=workdir,
            start_up=start_up,
            interruption=interruption,
        )
    gather('end', 'done')
    return result


def _open_in_turn(config: ml_collections.ConfigDict, group: Group) -> Dataset:
    """Opens the dataset, one process after another: only the first on each disk has to render the embedded one."""
    for index in range(group.count):
        if index == group.index:
            dataset = folders.open_or_render(config.dataset, config.data_dir).read_by(variant_of(config))
        gather('dataset', str(index))
    return dataset


def _prove_same(config: ml_collections.ConfigDict, dataset: Dataset, workdir: pathlib.Path, group: Group) -> None:
    """That all processes run the same code, with the same settings and data, into the same folder."""
    if group.count == 1:
        return
    settings = {name: value for name, value in config.to_dict().items() if name != 'data_dir'}
    agree(
        {'code': _code(), 'packages': digest_of_json(folders.versions())},
        remedy='install the same checkout and requirements.txt on all hosts',
    )
    agree({name: repr(value) for name, value in settings.items()}, remedy='start all with the same options')
    agree({'dataset': dataset.fingerprint}, remedy='prepare it once and copy it, or share --config.data_dir')
    seen = (workdir / 'run.json').read_text() if (workdir / 'run.json').exists() else 'nothing'
    words = gather('workdir', digest_of_json(seen))
    for index, word in enumerate(words):
        if word != words[0]:
            raise InputError(
                f'process {index} does not see the run folder of process 0 in {workdir}: --workdir must be on storage '
                f'that all hosts share'
            )


def _code() -> str:
    """sha256 of every source file of the package."""
    root = pathlib.Path(alexnet_jax.__file__).parent
    found = hashlib.sha256()
    for path in sorted(root.rglob('*.py')):
        found.update(path.relative_to(root).as_posix().encode() + b'\0' + path.read_bytes())
    return found.hexdigest()
