"""Recovers from a non-finite number: finds the step behind it, names its images, keeps the state before."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from alexnet_jax.checkpoints.checkpointer import Checkpointer
from alexnet_jax.distributed.phases import PROGRESS
from alexnet_jax.distributed.preemption import NOTHING_NEW, Preemption
from alexnet_jax.errors import InputError, Interrupted
from alexnet_jax.logs.logger import RunLogger
from alexnet_jax.logs.monitors import NonFiniteError
from alexnet_jax.sharding.mesh import replicate
from alexnet_jax.training.build import Run
from alexnet_jax.training.schedule import Plateau
from alexnet_jax.training.state import TrainState
from alexnet_jax.training.step import Batch

FILE = 'non_finite.jsonl'


@dataclasses.dataclass(kw_only=True)
class History:
    """Holds what has made the state besides the seed and the number of steps."""

    data_order: int  # how often the run was rolled back: each time its images come in another order
    since: int  # the step at which this process began, or to which it was rolled back: what was before is not known
    plateaus: dict[int, Plateau] = dataclasses.field(default_factory=dict)  # the rule's memory after the test of a step
    skipped: set[int] = dataclasses.field(default_factory=set)  # the steps whose batches were left out

    def restore_plateau(self, state: TrainState, mesh: Mesh) -> TrainState:
        """Returns `state` with the memory that the rule had after the test of its step, where there was one."""
        plateau = self.plateaus.get(int(state.step))
        return state if plateau is None else dataclasses.replace(state, plateau=replicate(mesh, plateau))

    def forget(self, *, after: int) -> None:
        """Forgets the tests of later steps than `after`."""
        self.plateaus = {step: plateau for step, plateau in self.plateaus.items() if step <= after}


@dataclasses.dataclass(frozen=True)
class NonFiniteCase:
    """A non-finite number and the step behind it."""

    error: NonFiniteError  # with the step at which it was seen
    step: int  # whose batch did it
    spoilt: bool  # the loss of that step was still finite and its update was not: then that has been made
    state: TrainState | None  # before that step; None where it is gone


def _set_step(state: TrainState, step: int, mesh: Mesh) -> TrainState:
    return dataclasses.replace(state, step=replicate(mesh, np.int32(step)))


@jax.jit
def _is_finite(state: TrainState) -> Array:
    """Tells whether all that the state holds is finite, and no loss has frozen it."""
    finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state)]).all()
    return finite & (state.step >= 0)


def _locate(error: NonFiniteError, state: TrainState, mesh: Mesh) -> NonFiniteCase:
    """Finds the step behind `error`, from the state that the run came to; all processes must call it."""
    step = int(state.step)
    if step < 0:  # frozen, see state.frozen: steps may change it again
        step = -step - 1
        state = _set_step(state, step, mesh)
    # A loss is that before the step's update, a test's that after it: then the step behind it was made.
    spoilt = error.step <= step or not _is_finite(state)
    return NonFiniteCase(error, step, True, None) if spoilt else NonFiniteCase(error, step + 1, False, state)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recovery:
    """Goes back to a state that is gone: from the last checkpoint, by making the steps since then again.

    Batches, dropout and lighting are functions of the seed and the step, so on the same mesh the same bits come out;
    `History` has what else has made the state.
    """

    run: Run
    workdir: pathlib.Path
    logger: RunLogger
    preemption: Preemption
    checkpointer: Checkpointer
    history: History
    batches: Callable[[int], Iterator[Batch]]  # after a number of updates
    records: Callable[[int], np.ndarray]  # int (b,), indices in the training split, of the batch after so many updates
    restore: Callable[[], TrainState]  # the newest whole checkpoint's, or the fresh one; InputError: all are damaged

    def recover(self, error: NonFiniteError, state: TrainState, update: Any, *, last_time: bool) -> TrainState:
        """Does what the config says about non-finite numbers, and returns the state to go on from.

        Args:
          error: the number.
          state: that after the last step dispatched.
          update: the compiled training step.
          last_time: whether to stop whatever the config says.

        Raises:
          InputError: the run stops.
          Interrupted: it was told to stop; there is nothing more to save.
        """
        PROGRESS.enter('recovery')
        case = _locate(error, state, self.run.mesh)
        action = 'stop' if last_time else self.run.config.on_non_finite
        if case.spoilt and action != 'roll_back':
            case = self._remake(case, update)
        file, history = self._record(case, action), self.history
        if action == 'roll_back':
            state = self._restore_last()
            history.data_order += 1
            history.since = int(state.step)
            history.forget(after=history.since)
            self.logger.rewind(history.since)
            self.logger.info(f'warning: {error}: back to step {history.since}, with another order of the images')
            return state
        if case.state is not None and action == 'skip':
            history.forget(after=case.step - 1)
            history.skipped.add(case.step)
            if case.spoilt:
                self.logger.rewind(case.step)  # steps after it may have been logged
            batch = f'the batch of step {case.step}' if case.spoilt else 'its batch'
            self.logger.info(f'warning: {error}: {batch} is left out; {file} names the images')
            return _set_step(case.state, case.step, self.run.mesh)
        before = 'the checkpoints before it are kept'
        if case.state is not None:
            self.checkpointer.save(case.state, data_order=history.data_order)
            before = f'the state before it is checkpoint {int(case.state.step)}'
        spoilt = f'the update of step {case.step} spoilt the parameters, ' if case.spoilt else ''
        raise InputError(
            f'{case.error}: stopped; {spoilt}{before}, {file} names the images of the batch; '
            f'try a lower --config.learning_rate, in a new --workdir'
        ) from error

    def _record(self, case: NonFiniteCase, action: str) -> pathlib.Path:
        """Adds a line to WORKDIR/non_finite.jsonl: the step, the number, what was done, the images of the batch."""
        path = self.workdir / FILE
        records = self.records(case.step - 1).tolist()
        if jax.process_index() == 0:
            number = {'number': case.error.name, 'value': str(case.error.value)}
            with path.open('a') as file:
                print(json.dumps({'step': case.step, **number, 'action': action, 'records': records}), file=file)
        return path

    def _restore_last(self) -> TrainState:
        """Restores the newest whole checkpoint, or the fresh state with which this process began."""
        self.checkpointer.wait()  # the one being written may be the newest
        try:
            state = self.restore()
        except InputError:
            if self.history.since:
                raise
            state = self.restore()  # without those that are set aside now, from the beginning
        return self.history.restore_plateau(state, self.run.mesh)

    def _remake(self, case: NonFiniteCase, update: Any) -> NonFiniteCase:
        """Returns `case`, of which the state is gone, with that state, where all that led to it is known.

        An infinite parameter may stay out of the losses for some steps: the case is then moved to the first step whose
        update was not finite.
        """
        state, last, mesh = self._restore_last(), case.step - 1, self.run.mesh
        start, batches = int(state.step), None
        if not self.history.since <= start <= last:
            return case
        again = f', from which steps {start + 1} to {last} are made again' if start < last else ''
        self.logger.info(
            f'warning: {case.error}: the update of step {case.step} spoilt the parameters; back to step {start}{again}'
        )
        for step in range(start + 1, case.step):
            PROGRESS.enter(f'step {step} of the recovery')
            if self.preemption.requested():
                raise Interrupted(NOTHING_NEW)
            if step in self.history.skipped:
                state, batches = _set_step(state, step, mesh), None  # nor is its batch made
            else:
                batches = batches or self.batches(step - 1)
                state, _ = update(state, next(batches))
                if not _is_finite(state):
                    return self._remake(dataclasses.replace(case, step=step), update)
            state = self.history.restore_plateau(state, mesh)
        return dataclasses.replace(case, state=state)
