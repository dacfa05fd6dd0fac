"""Checkpoints: Orbax writes and reads them, sha256 proves that they are what was in memory.

A checkpoint, WORKDIR/checkpoints/STEP, holds whole logical arrays and knows no mesh: one written by two devices or two
processes opens on one, or on four. Orbax by itself restores a flipped bit without a word. Here each piece has a hash in
the checkpoint's manifest, the manifest has one of itself, and a checkpoint that does not match is set aside.
"""

import contextlib
import dataclasses
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Self

import jax
import optax

from alexnet_jax.checkpoints.hashes import list_shapes
from alexnet_jax.checkpoints.manifest import FOLDER, SET_ASIDE, DamagedError, Manifest, list_steps, read_manifest
from alexnet_jax.checkpoints.orbax_io import TEMPORARY, AsyncWriter, read_arrays
from alexnet_jax.console import info
from alexnet_jax.distributed.hosts import allgather_str, sync_hosts
from alexnet_jax.errors import InputError, get_first_line
from alexnet_jax.training.schedule import Plateau
from alexnet_jax.training.state import TrainState

_DELETED = '.deleted_'  # begins the names of folders that are being deleted
_MARGIN = 1.1  # free space that a save must find, in multiples of the state's bytes


class SaveError(InputError):
    """A checkpoint could not be written; those before it are as they were."""

    may_be_lost_peer = True  # a peer's end fails the saves of all


class Checkpointer:
    """The checkpoints of a run folder, for all its processes; a context manager, which waits for the last save."""

    def __init__(
        self,
        workdir: pathlib.Path,
        *,
        keep: int,
        is_permanent: Callable[[int], bool] = lambda step: False,
        on_failed_save: str = 'stop',
        rate_factors: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        """Opens the checkpoints in `workdir`.

        Args:
          keep: how many of the latest checkpoints stay, besides the one with the lowest validation error.
          is_permanent: says of a step whether its checkpoint stays besides, for good.
          rate_factors: of the run, see `Manifest`.
          on_failed_save: 'stop' has `save` and `wait` raise what the disk refuses; 'continue' has them warn.
        """
        self.info: Callable[[str], None] = info
        self._patient = on_failed_save == 'continue'
        self._workdir = workdir.resolve()
        self._folder = self._workdir / FOLDER
        self._keep, self._is_permanent, self._rate_factors = keep, is_permanent, dict(rate_factors)
        if jax.process_index() == 0:
            self._folder.mkdir(parents=True, exist_ok=True)
        self._delete_leftovers()
        sync_hosts('checkpoints')
        self._writer = AsyncWriter()

    def __enter__(self) -> Self:
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

    def save(
        self, state: TrainState, *, top1_error: float | None = None, tested: bool = True, data_order: int = 0
    ) -> None:
        """Copies `state` and begins to write it in the background, after the save before.

        Args:
          state: to be copied.
          top1_error: of the validation split, 0..1; None: not tested.
          tested: False where the run was told to stop before the test of this step.
          data_order: how often the run was rolled back.

        Raises:
          SaveError: this checkpoint or the one before could not be written, and `on_failed_save` is 'stop'.
        """
        self.wait()
        with self._tolerating_failure():
            self._begin(state, top1_error, tested, data_order)

    def wait(self) -> None:
        """Waits for the save in the background and deletes the checkpoints no longer kept; `SaveError` as `save`."""
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
            safe = max(list_steps(self._workdir), default=0)
            self.info(f'WARNING: {error}. Training goes on, and what is safe is step {safe}')

    def _finish(self) -> None:
        try:
            self._writer.wait_until_finished()
        except Exception as error:  # Orbax documents no class for what a disk refuses
            self._delete_leftovers()
            raise SaveError(f'checkpoint not written: {get_first_line(error)}') from error
        self._delete_leftovers()
        if jax.process_index() == 0:
            self._delete_old()

    def _begin(self, state: TrainState, top1_error: float | None, tested: bool, data_order: int) -> None:
        step, tree = int(state.step), _make_tree(state)
        self._check_space(tree)
        if (self._folder / str(step)).exists():  # a resumed run saves again what it went on from
            if top1_error is not None and jax.process_index() == 0:
                self._add_error(self._folder / str(step), top1_error)
            return
        permanent = self._is_permanent(step)
        about = (top1_error, tested, data_order, permanent, self._rate_factors)
        manifest = Manifest(step, time.time(), list_shapes(tree), {}, *about)
        try:
            self._writer.begin(self._folder / str(step), tree, manifest)
        except Exception as error:  # as in `_finish`
            self._delete_leftovers()
            raise SaveError(f'checkpoint {step} not written: {get_first_line(error)}') from error

    def _add_error(self, path: pathlib.Path, top1_error: float) -> None:
        """Adds to a manifest the error of the test that the run was told to stop before.

        `tested` stays False: in this checkpoint the learning-rate rule has not learned of the error.
        """
        manifest = read_manifest(path)
        if manifest.top1_error is None:
            try:
                dataclasses.replace(manifest, top1_error=top1_error).write(path / 'hashes')
            except InputError as error:
                raise SaveError(f'the error of checkpoint {path.name} not noted in it: {error}') from error

    def restore_newest(self, like: TrainState) -> tuple[TrainState, Manifest] | None:
        """Restores the newest checkpoint that is whole, with its manifest; None where there is none.

        Moves the damaged ones that are newer to WORKDIR/damaged_checkpoints, with a warning that says what was lost.
        `like` holds shapes, dtypes and shardings, as jax.ShapeDtypeStruct.

        Raises:
          InputError: the checkpoint belongs to another network, or all are damaged.
        """
        damaged: list[tuple[int, str, float]] = []
        for step in reversed(list_steps(self._workdir)):
            path, problem = self._folder / str(step), ''
            saved_at = path.stat().st_mtime
            try:
                manifest = read_manifest(path)
                saved_at = manifest.saved_at
                restored = self.restore(like, manifest)
            except DamagedError as error:
                problem = str(error)
            # All take the same one: what one process cannot read, the others do not use.
            problem = next(filter(None, allgather_str('restored', problem)), '')
            if not problem:
                if damaged and jax.process_index() == 0:
                    self.info(self._format_loss(damaged, step, saved_at))
                return restored, manifest
            damaged.append((step, problem, saved_at))
            self._set_aside(path)
        if damaged:
            raise InputError(
                f'every checkpoint of this run is damaged ({damaged[0][0]}: {damaged[0][1]}) and now in '
                f'{self._workdir / SET_ASIDE}: the same command starts from the beginning'
            )
        return None

    def restore(self, like: TrainState, manifest: Manifest) -> TrainState:
        """Restores the checkpoint that `manifest` is of, to the devices that `like` names.

        Raises:
          DamagedError: it is not what was saved.
          InputError: it belongs to another network, or to a run in which other layers learn.
        """
        path, target = self._folder / str(manifest.step), _make_tree(like)
        if manifest.rate_factors != self._rate_factors:
            raise InputError(
                f'checkpoint {path} was made with the rate factors {manifest.rate_factors} (0: frozen), and this run '
                f'has {self._rate_factors}: go on with the same, or start another run with --config.init_from'
            )
        wanted, found = list_shapes(target), manifest.shapes
        if found != wanted:
            other = next(name for name in found | wanted if found.get(name) != wanted.get(name))
            raise InputError(
                f'checkpoint {path} is of another network: {other} is {found.get(other)}, not {wanted.get(other)}'
            )
        tree = read_arrays(path, target, manifest)
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
        needed = _MARGIN * sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
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
        if problem := next(filter(None, allgather_str('space', problem)), ''):
            raise SaveError(f'checkpoint not written: {problem}')

    def _set_aside(self, path: pathlib.Path) -> None:
        if jax.process_index() == 0:
            target = self._workdir / SET_ASIDE / f'{path.name}_{time.strftime("%Y%m%dT%H%M%S")}'
            target.parent.mkdir(exist_ok=True)
            while target.exists():  # of another of this step, in the same second
                target = target.with_name(f'{target.name}_')
            path.rename(target)
        sync_hosts('set aside')

    def _format_loss(self, damaged: list[tuple[int, str, float]], good: int, saved_at: float) -> str:
        newest, problem, when = damaged[0]
        which = ', '.join(str(step) for step, _, _ in damaged)
        return (
            f'warning: checkpoint {which} is damaged ({problem}) and now in {self._workdir / SET_ASIDE}; the run goes '
            f'on from step {good}: {newest - good} steps, {max(0.0, when - saved_at) / 60:.0f} minutes, are made again'
        )

    def _delete_old(self) -> None:
        """Deletes all but the latest, the best and the permanent; damaged checkpoints do not count, and stay."""
        found: list[Manifest] = []
        for step in list_steps(self._workdir):
            with contextlib.suppress(DamagedError):
                found.append(read_manifest(self._folder / str(step)))
        tested = {manifest.step: manifest.top1_error for manifest in found if manifest.top1_error is not None}
        best = min(tested, key=tested.__getitem__, default=None)
        for manifest in found[: -self._keep]:
            step = manifest.step
            if step != best and not (manifest.permanent or self._is_permanent(step)):
                doomed = self._folder / f'{_DELETED}{step}'  # renamed first: half a checkpoint never has a step's name
                with contextlib.suppress(OSError):  # shared storage may refuse while somebody reads it: next time then
                    (self._folder / str(step)).rename(doomed)
                shutil.rmtree(doomed, ignore_errors=True)

    def _delete_leftovers(self) -> None:
        """Deletes what failed or killed saves and deletions have left; what is still in use, the next time."""
        if jax.process_index() == 0:
            for path in self._folder.iterdir():
                if path.name.startswith(_DELETED) or TEMPORARY in path.name:
                    shutil.rmtree(path, ignore_errors=True)


def _make_tree(state: TrainState) -> dict[str, Any]:
    """Makes the tree that is written: named by meaning, not by how Optax happens to nest it."""
    return {
        'step': state.step,
        'params': state.params,
        'momentum': optax.tree_utils.tree_get(state.opt_state, 'trace'),
        'plateau': vars(state.plateau),
        'mean_image': state.mean_image,
    }
