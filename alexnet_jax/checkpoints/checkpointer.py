"""Checkpoints: Orbax writes and reads them, sha256 proves that they are what was in memory.

A checkpoint, WORKDIR/checkpoints/STEP, holds whole logical arrays and knows no mesh: one written by two devices or two
processes opens on one, or on four. Orbax by itself restores a flipped bit without a word. Here each piece has a hash in
the checkpoint's manifest, the manifest has one of itself, and a checkpoint that does not match is set aside.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from alexnet_jax.checkpoints.hashes import find_differing, get_shapes, iter_pieces
from alexnet_jax.checkpoints.manifest import MANIFEST, DamagedError, Manifest, read_manifest
from alexnet_jax.checkpoints.orbax_io import TEMPORARY, AsyncWriter, get_first_line, read_arrays
from alexnet_jax.console import info
from alexnet_jax.distributed.hosts import allgather_str
from alexnet_jax.errors import InputError
from alexnet_jax.files import write_file
from alexnet_jax.sharding.mesh import abstract, parameter_specs
from alexnet_jax.training.build import Run
from alexnet_jax.training.schedule import Plateau
from alexnet_jax.training.state import TrainState

FOLDER, SET_ASIDE = 'checkpoints', 'damaged_checkpoints'  # in the run folder
_DELETED = '.deleted_'  # begins the names of folders that are being deleted
_MARGIN = 1.1  # free space that a save must find, in multiples of the state's bytes


class SaveError(InputError):
    """A checkpoint could not be written; those before it are as they were."""

    perhaps_by_a_peer = True


class Checkpointer:
    """The checkpoints of a run folder, for all its processes together.

    Use as a context manager: leaving it waits for what is still being written.
    """

    def __init__(self, workdir: pathlib.Path, *, keep: int, on_failed_save: str = 'stop') -> None:
        """Opens the checkpoints in `workdir`.

        Args:
          workdir: the run folder.
          keep: how many of the latest checkpoints stay, besides the one with the lowest validation error.
          on_failed_save: 'stop' has `save` and `wait` raise what the disk refuses; 'continue' has them warn.
        """
        self.info: Callable[[str], None] = info
        self._patient = on_failed_save == 'continue'
        self._folder = workdir.resolve() / FOLDER
        self._aside = workdir.resolve() / SET_ASIDE
        self._keep = keep
        if jax.process_index() == 0:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._clean()
        allgather_str('checkpoints', 'ready')
        self._writer = AsyncWriter()

    def __enter__(self) -> Checkpointer:
        return self

    def __exit__(self, failed: type[BaseException] | None, *exception: object) -> None:
        try:
            self._finish()
        except SaveError as error:
            if not failed:
                raise
            # Not in place of the reason for which the run ends; beside a lost process it would be no news.
            if issubclass(failed, InputError):
                info(f'warning: {error}')
        finally:
            self._writer.close()

    def steps(self) -> list[int]:
        """The steps of all checkpoints, whatever is in them, oldest first."""
        return sorted(int(path.name) for path in self._folder.iterdir() if path.name.isdigit())

    def save(
        self, state: TrainState, *, top1_error: float | None = None, tested: bool = True, data_order: int = 0
    ) -> None:
        """Begins to write `state`, of which it takes a copy; the rest happens in the background.

        Args:
          state: to be written.
          top1_error: of the validation split, 0..1; None: not tested.
          tested: False where the run was told to stop before the test of this step.
          data_order: how often the run was rolled back.

        Raises:
          SaveError: this one or the one before could not be written, and the run is to stop then; older ones are as
            they were.
        """
        self.wait()  # for the one before, whose failure shows here
        with self._tolerating_failure():
            self._begin(state, top1_error, tested, data_order)

    def wait(self) -> None:
        """Waits until what is being written is there, and what is no longer kept is gone; `SaveError` as `save`."""
        with self._tolerating_failure():
            self._finish()

    def save_now(self, state: TrainState, *, tested: bool = True, data_order: int = 0) -> None:
        """Saves `state` and waits for it; raises `SaveError` whatever `on_failed_save` says, but for earlier saves."""
        self.wait()
        self._begin(state, None, tested, data_order)
        self._finish()

    @contextlib.contextmanager
    def _tolerating_failure(self) -> Iterator[None]:
        try:
            yield
        except SaveError as error:
            if not self._patient:
                raise
            self.info(f'WARNING: {error}. Training goes on, and what is safe is step {max(self.steps(), default=0)}')

    def _finish(self) -> None:
        try:
            self._writer.wait()
        except Exception as error:  # Orbax documents no class for what a disk refuses
            self._clean()
            raise SaveError(f'checkpoint not written: {get_first_line(error)}') from error
        if jax.process_index() == 0:
            self._clean()
            self._forget()

    def _begin(self, state: TrainState, top1_error: float | None, tested: bool, data_order: int) -> None:
        self._finish()
        step, tree = int(state.step), _tree(state)
        self._check_space(tree)
        if (self._folder / str(step)).exists():  # a resumed run saves again what it went on from
            if top1_error is not None and jax.process_index() == 0:
                self._note(step, top1_error)
            return
        manifest = Manifest(step, time.time(), get_shapes(tree), {}, top1_error, tested, data_order)
        try:
            self._writer.begin(self._folder / str(step), tree, manifest)
        except Exception as error:  # as in `_finish`
            self._clean()
            raise SaveError(f'checkpoint {step} not written: {get_first_line(error)}') from error

    def _note(self, step: int, top1_error: float) -> None:
        """Writes into a manifest what the test found that the run was told to stop before.

        `tested` stays False: the rule for the rate has not learned of it in this checkpoint.
        """
        path = self._folder / str(step) / MANIFEST
        manifest = read_manifest(self._folder / str(step))
        if manifest.top1_error is not None:
            return
        try:
            write_file(path, dataclasses.replace(manifest, top1_error=top1_error).text())
        except InputError as error:
            raise SaveError(f'the error of checkpoint {step} not noted in it: {error}') from error

    def restore_newest(self, like: TrainState, mesh: Mesh) -> tuple[TrainState, Manifest] | None:
        """Restores the newest checkpoint that is whole, placed on `mesh`, with its manifest; None where there is none.

        Damaged ones that are newer are moved to WORKDIR/damaged_checkpoints, with a warning that says what was lost.

        Args:
          like: gives shapes; its values are dropped.
          mesh: of the devices to restore to.

        Raises:
          InputError: the checkpoint belongs to another network, or all are damaged.
        """
        damaged: list[tuple[int, str, float]] = []
        for step in reversed(self.steps()):
            restored, manifest, problem = None, None, ''
            when = (self._folder / str(step)).stat().st_mtime
            try:
                manifest = read_manifest(self._folder / str(step))
                when = manifest.saved_at
                restored = self._restore(like, mesh, manifest)
            except DamagedError as error:
                problem = str(error)
            # All take the same one: what one process cannot read, the others do not use.
            problem = next(filter(None, allgather_str('restored', problem)), '')
            if not problem:
                if damaged and jax.process_index() == 0:
                    self.info(_format_loss(damaged, step, when, self._aside))
                return restored, manifest  # type: ignore[return-value]
            damaged.append((step, problem, when))
            self._set_aside(step)
        if damaged:
            raise InputError(
                f'every checkpoint of this run is damaged ({damaged[0][0]}: {damaged[0][1]}) and now in {self._aside}: '
                f'the same command starts from the beginning'
            )
        return None

    def restore(self, like: TrainState, mesh: Mesh, *, step: int) -> tuple[TrainState, Manifest]:
        """The checkpoint of `step`, placed on `mesh`, and its manifest.

        Raises:
          Damaged: it is not what was saved.
          InputError: it belongs to another network.
        """
        manifest = read_manifest(self._folder / str(step))
        return self._restore(like, mesh, manifest), manifest

    def _restore(self, like: TrainState, mesh: Mesh, manifest: Manifest) -> TrainState:
        path = self._folder / str(manifest.step)
        shapes = jax.eval_shape(_tree, like)
        wanted = get_shapes(shapes)
        found = manifest.shapes
        if found != wanted:
            other = next(name for name in found | wanted if found.get(name) != wanted.get(name))
            raise InputError(
                f'checkpoint {path} is of another network: {other} is {found.get(other)}, not {wanted.get(other)}'
            )
        target = abstract(mesh, shapes, parameter_specs(mesh, shapes))
        tree = read_arrays(path, target)
        wrong = find_differing(iter_pieces(tree, every_copy=True), manifest.pieces)
        if wrong:
            raise DamagedError(f'{", ".join(wrong)} not as saved')
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
        problem = next(filter(None, allgather_str('space', problem)), '')
        if problem:
            raise SaveError(f'checkpoint not written: {problem}')

    def _set_aside(self, step: int) -> None:
        if jax.process_index() == 0:
            self._aside.mkdir(exist_ok=True)
            target = self._aside / f'{step}_{time.strftime("%Y%m%dT%H%M%S")}'
            while target.exists():  # of another of this step, in the same second
                target = target.with_name(f'{target.name}_')
            (self._folder / str(step)).rename(target)
        allgather_str('set aside', str(step))

    def _forget(self) -> None:
        """Deletes what is neither one of the latest nor the best; what is damaged does not count, and stays."""
        steps, errors = self.steps(), {}
        if len(steps) <= self._keep:
            return
        for step in list(steps):
            try:
                error = read_manifest(self._folder / str(step)).top1_error
            except DamagedError:
                steps.remove(step)
                continue
            if error is not None:
                errors[step] = error
        best = {min(errors, key=lambda step: errors[step])} if errors else set()
        for step in set(steps[: -self._keep]) - best:
            doomed = self._folder / f'{_DELETED}{step}'  # renamed first: half a checkpoint never has a step's name
            with contextlib.suppress(OSError):  # shared storage may refuse while somebody reads it: the next time then
                (self._folder / str(step)).rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)

    def _clean(self) -> None:
        """Deletes what saves and deletions that failed or were killed have left; what is in use yet, the next time."""
        if jax.process_index() == 0:
            for path in self._folder.iterdir():
                if path.name.startswith(_DELETED) or TEMPORARY in path.name:
                    shutil.rmtree(path, ignore_errors=True)


def _format_loss(damaged: list[tuple[int, str, float]], good: int, saved_at: float, aside: pathlib.Path) -> str:
    newest, problem, when = damaged[0]
    which = ', '.join(str(step) for step, _, _ in damaged)
    return (
        f'warning: checkpoint {which} is damaged ({problem}) and now in {aside}; the run goes on from step {good}: '
        f'{newest - good} steps, {max(0.0, when - saved_at) / 60:.0f} minutes, are made again'
    )


def _tree(state: TrainState) -> dict[str, Any]:
    """What is written: named by meaning, not by how Optax happens to nest it."""
    return {
        'step': state.step,
        'params': state.params,
        'momentum': optax.tree_utils.tree_get(state.opt_state, 'trace'),
        'plateau': {field.name: getattr(state.plateau, field.name) for field in dataclasses.fields(Plateau)},
        'mean_image': state.mean_image,
    }


def restore_or_init(run: Run, mean_image: np.ndarray, checkpointer: Checkpointer) -> tuple[TrainState, int, bool]:
    """Restores the newest whole checkpoint's state, or creates the one before the first update.

    Args:
      run: whose network, update rule and mesh the state is of.
      mean_image: float32 (input_size, input_size, 3), 0..255; of a fresh state.
      checkpointer: of the run folder.

    Returns:
      The state, how often the run was rolled back (its data order), and whether the step was tested.

    Raises:
      InputError: there are checkpoints, and all are damaged; they are set aside now.
    """
    if found := checkpointer.restore_newest(run.abstract_state(), run.mesh):
        state, manifest = found
        return state, manifest.data_order, manifest.tested
    return run.create_state(mean_image), 0, True
