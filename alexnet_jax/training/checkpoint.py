"""Checkpoints: Orbax writes and reads them, a sha256 per leaf proves that they are what was written.

The only file that imports orbax. A checkpoint holds whole logical arrays and knows no mesh: one written by two devices
opens on one, or on four. Orbax by itself restores a flipped bit without a word; the hashes refuse it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import logging
import pathlib
import sys
import warnings
from typing import Any

import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
from jax.sharding import Mesh
from orbax.checkpoint.checkpoint_managers import preservation_policy

from alexnet_jax import InputError
from alexnet_jax.parallel.mesh import abstract, parameter_specs
from alexnet_jax.training.schedule import Plateau
from alexnet_jax.training.state import TrainState


class Checkpoints:
    """The checkpoints of a run folder, in WORKDIR/checkpoints/STEP.

    Use as a context manager: leaving it waits for what is still being written.
    """

    def __init__(self, workdir: pathlib.Path, *, keep: int) -> None:
        """Keeps the latest `keep` checkpoints and the one with the lowest validation error."""
        self._folder = workdir.resolve() / 'checkpoints'
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=preservation_policy.AnyPreservationPolicy(
                    [
                        preservation_policy.LatestN(keep),
                        preservation_policy.BestN(
                            n=1,
                            get_metric_fn=lambda metrics: metrics['top1_error'],
                            reverse=True,
                            keep_checkpoints_without_metrics=False,
                        ),
                    ]
                ),
                cleanup_tmp_directories=True,  # of a run that was killed while saving
            ),
        )

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *exception: object) -> None:
        self._manager.close()

    def latest_step(self) -> int | None:
        """The step of the newest checkpoint, None where there is none."""
        return self._manager.latest_step()

    def save(self, state: TrainState, *, top1_error: float | None = None) -> None:
        """Writes `state` in the background; `top1_error` of the validation images, where it was just measured."""
        step, tree = int(state.step), _tree(state)
        self._manager.save(
            step,
            args=ocp.args.Composite(state=ocp.args.StandardSave(tree), hashes=ocp.args.JsonSave(leaf_hashes(tree))),
            metrics=None if top1_error is None else {'top1_error': top1_error},
        )

    def restore(self, like: TrainState, mesh: Mesh, *, step: int) -> TrainState:
        """The checkpoint of `step`, placed on `mesh`; `like` gives shapes, its values are dropped.

        Raises:
          InputError: the checkpoint is damaged, or belongs to another network.
        """
        shapes = jax.eval_shape(_tree, like)
        target = abstract(mesh, shapes, parameter_specs(shapes))
        advice = f'checkpoint {self._folder / str(step)} cannot be used; delete it to resume from the one before'
        try:
            restored = self._manager.restore(
                step,
                args=ocp.args.Composite(state=ocp.args.StandardRestore(target), hashes=ocp.args.JsonRestore()),
            )
        except Exception as error:  # Orbax documents no class of its own for damaged files
            _silence_abandoned_reads()
            raise InputError(f'{advice}: {(str(error).splitlines() or [repr(error)])[0][:200]}') from error
        found = leaf_hashes(restored.state)
        damaged = sorted(name for name in found if restored.hashes.get(name) != found[name])
        if damaged:
            raise InputError(f'{advice}: {", ".join(damaged)} differ from what was saved')
        return dataclasses.replace(
            like,
            step=restored.state['step'],
            params=restored.state['params'],
            opt_state=optax.tree_utils.tree_set(like.opt_state, trace=restored.state['momentum']),
            plateau=Plateau(**restored.state['plateau']),
            mean_image=restored.state['mean_image'],
        )


def _silence_abandoned_reads() -> None:
    """Keeps the one line that says what is wrong from being followed by pages.

    When a read fails, Orbax leaves the reads of other leaves that it had begun, and each complains when Python frees
    it, at the latest when the process ends.
    """
    report = sys.unraisablehook

    def of_others(unraisable: Any) -> None:
        read = inspect.iscoroutine(unraisable.object) and 'orbax' in unraisable.object.cr_code.co_filename
        if not read and str(unraisable.exc_value) != 'Event loop is closed':  # or wants to tell the loop it read for
            report(unraisable)

    sys.unraisablehook = of_others
    warnings.filterwarnings('ignore', message=r"coroutine '_read_array\w*' was never awaited")
    logging.getLogger('asyncio').addFilter(lambda record: 'exception was never retrieved' not in record.getMessage())


def _tree(state: TrainState) -> dict[str, Any]:
    """What is written: named by meaning, not by how Optax happens to nest it."""
    return {
        'step': state.step,
        'params': state.params,
        'momentum': optax.tree_utils.tree_get(state.opt_state, 'trace'),
        'plateau': {field.name: getattr(state.plateau, field.name) for field in dataclasses.fields(Plateau)},
        'mean_image': state.mean_image,
    }


def leaf_hashes(tree: Any) -> dict[str, str]:
    """{path: sha256 of the whole logical array's dtype, shape and bytes} of every leaf."""
    hashes = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        value = np.ascontiguousarray(leaf)
        digest = hashlib.sha256(f'{value.dtype.str} {value.shape}'.encode())
        digest.update(value.data)
        hashes[jax.tree_util.keystr(path, simple=True, separator='/')] = digest.hexdigest()
    return hashes


def tree_hash(tree: Any) -> str:
    """One sha256 of a whole tree: equal if and only if every leaf is, bit for bit."""
    lines = [f'{name} {digest}' for name, digest in sorted(leaf_hashes(tree).items())]
    return hashlib.sha256('\n'.join(lines).encode()).hexdigest()
