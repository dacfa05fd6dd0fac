"""Checkpoints: Orbax writes and reads them, sha256 proves that they are what was in memory.

A checkpoint, WORKDIR/checkpoints/STEP, holds whole logical arrays and knows no mesh:
one written by two devices or two processes opens on one, or on four. Orbax by itself restores a flipped bit without a
word. Here each piece has a hash in the checkpoint's seal, the seal has one of itself, and what does not match is set
aside.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import pathlib
import shutil
import time
from typing import Any

import jax
import optax
from jax.sharding import Mesh

from alexnet_jax import InputError
from alexnet_jax.parallel.mesh import abstract, parameter_specs
from alexnet_jax.parallel.processes import fetch, gather
from alexnet_jax.training.digests import differing, leaf_hashes, pieces, shapes_of
from alexnet_jax.training.logbook import to_stderr
from alexnet_jax.training.schedule import Plateau
from alexnet_jax.training.seal import SEAL, Damaged, Seal, read_seal
from alexnet_jax.training.state import TrainState
from alexnet_jax.training.storage import TEMPORARY, Writer, described, first_line, read

FOLDER, SET_ASIDE = 'checkpoints', 'damaged_checkpoints'  # in the run folder
_DELETED = '.deleted_'  # begins the names of folders that are being deleted
_MARGIN = 1.1  # free space that a save must find, in multiples of the state's bytes


class NotSaved(InputError):
    """A checkpoint could not be written; those before it are as they were."""

    perhaps_by_a_peer = True


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
        self._writer = Writer()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, failed: type[BaseException] | None, *exception: object) -> None:
        try:
            self.wait()
        except NotSaved as error:
            if not failed:
                raise
            # Not in place of the reason for which the run ends; beside a lost process it would be no news.
            if issubclass(failed, InputError):
                to_stderr(f'warning: {error}')
        finally:
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
            self._writer.wait()
        except Exception as error:  # Orbax documents no class for what a disk refuses
            self._clean()
            raise NotSaved(f'checkpoint not written: {first_line(error)}') from error
        if jax.process_index() == 0:
            self._clean()
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
            if top1_error is not None and jax.process_index() == 0:
                self._note(step, top1_error)
            return
        seal = Seal(step, time.time(), shapes_of(tree), {}, top1_error, tested, data_order)
        try:
            self._writer.begin(self._folder / str(step), tree, seal)
        except Exception as error:  # as in `wait`
            self._clean()
            raise NotSaved(f'checkpoint {step} not written: {first_line(error)}') from error

    def _note(self, step: int, top1_error: float) -> None:
        """Writes into a seal what the test found that the run was told to stop before.

        `tested` stays False: the rule for the rate has not learned of it in this checkpoint.
        """
        path = self._folder / str(step) / SEAL
        seal = read_seal(self._folder / str(step))
        if seal.old or seal.top1_error is not None:
            return
        half = path.with_name(f'.{path.name}.half')
        try:
            half.write_text(dataclasses.replace(seal, top1_error=top1_error).text())
            half.replace(path)
        except OSError as error:
            raise NotSaved(f'the error of checkpoint {step} not noted in it: {error.strerror}') from error

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
        found = shapes_of(described(path)) if seal.old else seal.shapes
        if found != wanted:
            other = next(name for name in found | wanted if found.get(name) != wanted.get(name))
            raise InputError(
                f'checkpoint {path} is of another network: {other} is {found.get(other)}, not {wanted.get(other)}'
            )
        target = abstract(mesh, shapes, parameter_specs(mesh, shapes))
        tree = read(path, target)
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
            while target.exists():  # of another of this step, in the same second
                target = target.with_name(f'{target.name}_')
            (self._folder / str(step)).rename(target)
        gather('set aside', str(step))

    def _forget(self) -> None:
        """Deletes what is neither one of the latest nor the best; what is damaged does not count, and stays."""
        steps, errors = self.steps(), {}
        if len(steps) <= self._keep:
            return
        for step in list(steps):
            try:
                error = read_seal(self._folder / str(step)).top1_error
            except Damaged:
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


def _loss(damaged: list[tuple[int, str, float]], good: int, saved_at: float, aside: pathlib.Path) -> str:
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
