"""Checkpoints: Orbax writes and reads them, sha256 proves that they are what was in memory.

The only file that imports orbax. A checkpoint, WORKDIR/checkpoints/STEP, holds whole logical arrays and knows no mesh:
one written by two devices or two processes opens on one, or on four. Orbax by itself restores a flipped bit without a
word. Here each piece has a hash in the checkpoint's seal, the seal has one of itself, and what does not match is set
aside.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import logging
import math
import os
import pathlib
import shutil
import sys
import time
import warnings
from typing import Any

import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
from jax.sharding import Mesh

from alexnet_jax import InputError
from alexnet_jax.parallel.mesh import abstract, parameter_specs
from alexnet_jax.parallel.processes import fetch, gather
from alexnet_jax.training.digests import differing, digest, leaf_hashes, pieces, shapes_of
from alexnet_jax.training.schedule import Plateau
from alexnet_jax.training.seal import SEAL, Damaged, Seal, read_seal
from alexnet_jax.training.state import TrainState

FOLDER, SET_ASIDE = 'checkpoints', 'damaged_checkpoints'  # in the run folder
_MARGIN = 1.1  # free space that a save must find, in multiples of the state's bytes


class NotSaved(InputError):
    """A checkpoint could not be written; those before it are as they were."""


class Checkpoints:
    """The checkpoints of a run folder, for all its processes together.

    Use as a context manager: leaving it waits for what is still being written.
    """

    def __init__(self, workdir: pathlib.Path, *, keep: int) -> None:
        """Keeps the latest `keep` checkpoints and the one with the lowest validation error."""
        self._folder = workdir.resolve() / FOLDER
        self._aside = workdir.resolve() / SET_ASIDE
        self._keep = keep
        if jax.process_index() == 0:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._clean()
        gather('checkpoints', 'ready')
        self._writer = ocp.AsyncCheckpointer(
            ocp.CompositeCheckpointHandler(state=ocp.StandardCheckpointHandler(), hashes=_SealHandler()),
            # Orbax's own limit, after which it would give up on a slow disk: a lost peer is found by parallel.peers.
            async_options=ocp.AsyncOptions(timeout_secs=24 * 3600),
        )

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, failed: type[BaseException] | None, *exception: object) -> None:
        if failed:
            self._writer.close()
            return
        self.wait()
        self._writer.close()

    def steps(self) -> list[int]:
        """The steps of all checkpoints, whatever is in them, oldest first."""
        return sorted(int(path.name) for path in self._folder.iterdir() if path.name.isdigit())

    def wait(self) -> None:
        """Until what is being written is there, and what is no longer kept is gone.

        Raises:
          NotSaved: it could not be written.
        """
        try:
            self._writer.wait_until_finished()
        except Exception as error:  # Orbax documents no class for what a disk refuses
            self._clean()
            raise NotSaved(f'checkpoint not written: {_first_line(error)}') from error
        if jax.process_index() == 0:
            self._forget()

    def save(
        self, state: TrainState, *, top1_error: float | None = None, tested: bool = True, data_order: int = 0
    ) -> None:
        """Begins to write `state`, of which it takes a copy; the rest happens in the background.

        Raises:
          NotSaved: this one or the one before could not be written; older ones are as they were.
        """
        self.wait()
        step, tree = int(state.step), _tree(state)
        self._check_space(tree)
        if (self._folder / str(step)).exists():  # a resumed run saves again what it went on from
            return
        seal = Seal(step, time.time(), shapes_of(tree), {}, top1_error, tested, data_order)
        try:
            self._writer.save(
                self._folder / str(step),
                args=ocp.args.Composite(state=ocp.args.StandardSave(tree), hashes=_SealArgs(seal, tree)),
            )
        except Exception as error:  # as in `wait`
            self._clean()
            raise NotSaved(f'checkpoint {step} not written: {_first_line(error)}') from error

    def restore_newest(self, like: TrainState, mesh: Mesh, *, say: Any) -> tuple[TrainState, Seal] | None:
        """The newest checkpoint that is whole, placed on `mesh`, and its seal; None where there is none.

        Damaged ones that are newer are moved to WORKDIR/damaged_checkpoints, and `say` is told what was lost.

        Args:
          like: gives shapes; its values are dropped.
          mesh: of the devices to restore to.
          say: prints a line.

        Raises:
          InputError: the checkpoint belongs to another network, or all are damaged.
        """
        damaged: list[tuple[int, str, float]] = []
        for step in reversed(self.steps()):
            restored, seal, problem = None, None, ''
            when = (self._folder / str(step)).stat().st_mtime
            try:
                seal = read_seal(self._folder / str(step))
                when = seal.saved_at
                restored = self._restore(like, mesh, seal)
            except Damaged as error:
                problem = str(error)
            # All take the same one: what one process cannot read, the others do not use.
            problem = next(filter(None, gather('restored', problem)), '')
            if not problem:
                if damaged:
                    say(_loss(damaged, step, seal.saved_at if seal else when, self._aside))
                return restored, seal  # type: ignore[return-value]
            damaged.append((step, problem, when))
            self._set_aside(step)
        if damaged:
            raise InputError(
                f'every checkpoint of this run is damaged ({damaged[0][0]}: {damaged[0][1]}) and now in {self._aside}: '
                f'the same command starts from the beginning'
            )
        return None

    def restore(self, like: TrainState, mesh: Mesh, *, step: int) -> tuple[TrainState, Seal]:
        """The checkpoint of `step`, placed on `mesh`, and its seal.

        Raises:
          Damaged: it is not what was saved.
          InputError: it belongs to another network.
        """
        seal = read_seal(self._folder / str(step))
        return self._restore(like, mesh, seal), seal

    def _restore(self, like: TrainState, mesh: Mesh, seal: Seal) -> TrainState:
        path = self._folder / str(seal.step)
        shapes = jax.eval_shape(_tree, like)
        wanted = shapes_of(shapes)
        found = _shapes_in(path) if seal.old else seal.shapes
        if found != wanted:
            other = next(name for name in found | wanted if found.get(name) != wanted.get(name))
            raise InputError(
                f'checkpoint {path} is of another network: {other} is {found.get(other)}, not {wanted.get(other)}'
            )
        target = abstract(mesh, shapes, parameter_specs(shapes))
        tree = _read(path, target)
        if seal.old:
            wrong = sorted(name for name, value in leaf_hashes(fetch(tree)).items() if seal.pieces.get(name) != value)
        else:
            wrong = differing(pieces(tree, every_copy=True), seal.pieces)
        if wrong:
            raise Damaged(f'{", ".join(wrong)} not as saved')
        return dataclasses.replace(
            like,
            step=tree['step'],
            params=tree['params'],
            opt_state=optax.tree_utils.tree_set(like.opt_state, trace=tree['momentum']),
            plateau=Plateau(**tree['plateau']),
            mean_image=tree['mean_image'],
        )

    def _check_space(self, tree: Any) -> None:
        """Refuses, on all processes alike, what the disk has no room for: a half-written save would fill it."""
        needed = _MARGIN * sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
        problem = ''
        try:
            probe = self._folder / f'.writable{jax.process_index()}'
            probe.write_text('x')
            probe.unlink()
            free = shutil.disk_usage(self._folder).free
            if free < needed:
                problem = f'{free / 1e6:.0f} MB are free in {self._folder}, {needed / 1e6:.0f} MB are needed'
        except OSError as error:
            problem = f'cannot write to {self._folder}: {error.strerror}'
        problem = next(filter(None, gather('space', problem)), '')
        if problem:
            raise NotSaved(f'checkpoint not written: {problem}')

    def _set_aside(self, step: int) -> None:
        if jax.process_index() == 0:
            self._aside.mkdir(exist_ok=True)
            target = self._aside / f'{step}_{time.strftime("%Y%m%dT%H%M%S")}'
            (self._folder / str(step)).rename(target)
        gather('set aside', str(step))

    def _forget(self) -> None:
        """Deletes what is neither one of the latest nor the best."""
        steps, errors = self.steps(), {}
        if len(steps) <= self._keep:
            return
        for step in steps:
            try:
                error = read_seal(self._folder / str(step)).top1_error
            except Damaged:  # what it was is not known, so it is not the best
                continue
            if error is not None:
                errors[step] = error
        best = {min(errors, key=lambda step: errors[step])} if errors else set()
        for step in set(steps[: -self._keep]) - best:
            doomed = self._folder / f'.deleted_{step}'  # renamed first: half a checkpoint never has a step's name
            (self._folder / str(step)).rename(doomed)
            shutil.rmtree(doomed)

    def _clean(self) -> None:
        """Deletes what saves and deletions that were killed have left."""
        if jax.process_index() == 0:
            for path in self._folder.iterdir():
                if not path.name.isdigit() and (path.name.startswith('.') or '.orbax-checkpoint-tmp' in path.name):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _loss(damaged: list[tuple[int, str, float]], good: int, saved_at: float, aside: pathlib.Path) -> str:
    newest, problem, when = damaged[0]
    which = ', '.join(str(step) for step, _, _ in damaged)
    return (
        f'warning: checkpoint {which} is damaged ({problem}) and now in {aside}; the run goes on from step {good}: '
        f'{newest - good} steps, {max(0.0, when - saved_at) / 60:.0f} minutes, are made again'
    )


def _read(path: pathlib.Path, target: Any) -> Any:
    """The arrays of a checkpoint; each process reads for itself, so that one that fails leaves no other waiting."""
    own = jax.process_index()
    alone = ocp.options.MultiprocessingOptions()
    if jax.process_count() > 1:
        alone = ocp.options.MultiprocessingOptions(own, {own}, f'process{own}')
    try:
        handler = ocp.StandardCheckpointHandler(multiprocessing_options=alone)
        with ocp.Checkpointer(handler, multiprocessing_options=alone) as reader:
            return reader.restore(path / 'state', args=ocp.args.StandardRestore(target))
    except Exception as error:  # Orbax documents no class of its own for damaged files
        _silence_abandoned_reads()
        raise Damaged(f'cannot be read: {_first_line(error)}') from error


def _shapes_in(path: pathlib.Path) -> dict[str, list[int]]:
    """{leaf: shape} as Orbax wrote it down."""
    try:
        return shapes_of(ocp.StandardCheckpointHandler().metadata(path / 'state').tree)
    except Exception as error:  # as in `_read`
        raise Damaged(f'its metadata cannot be read: {_first_line(error)}') from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [repr(error)])[0][:200]


class _SealHandler(ocp.AsyncCheckpointHandler):
    """Writes the seal beside Orbax's arrays, before the whole becomes a checkpoint by being renamed."""

    async def async_save(self, directory: Any, args: _SealArgs) -> list[Any]:
        # Copies, because the state is donated to the next step; what takes longer, hashing them, is for later.
        held = [(name, np.array(value)) for name, value in pieces(args.tree, every_copy=False)]

        async def write() -> None:
            words = gather('seal', json.dumps({name: digest(value) for name, value in held}))
            if jax.process_index() == 0:
                every = {name: found for word in words for name, found in json.loads(word).items()}
                text = dataclasses.replace(args.seal, pieces=every).text()
                path = pathlib.Path(os.fspath(directory)) / SEAL.name
                path.write_text(text)

        return [ocp.future.CommitFutureAwaitingContractedSignals(write(), name='seal')]

    def save(self, directory: Any, args: _SealArgs) -> None:
        raise NotImplementedError('saved in the background only')

    def restore(self, directory: Any, args: Any = None) -> None:
        raise NotImplementedError('see read_seal')


@ocp.args.register_with_handler(_SealHandler, for_save=True, for_restore=True)
@dataclasses.dataclass
class _SealArgs(ocp.args.CheckpointArgs):
    seal: Seal
    tree: Any


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
