"""What to do about a non-finite number: find the step behind it, name its images, keep the state before."""

from __future__ import annotations

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
    """What has made the state besides the seed and the number of steps.

    Attributes:
      data_order: how often the run was rolled back: each time its images come in another order.
      since: the step at which this process began, or to which it was rolled back: what was before is not known.
      plateaus: {step: the learning-rate rule's memory after the test of it}.
      skipped: the steps whose batches were left out.
    """

    data_order: int
    since: int
    plateaus: dict[int, Plateau] = dataclasses.field(default_factory=dict)
    skipped: set[int] = dataclasses.field(default_factory=set)

    def restore_plateau(self, state: TrainState, mesh: Mesh) -> TrainState:
        """Returns `state` with the memory that the rule had after the test of its step, where there was one."""
        plateau = self.plateaus.get(int(state.step))
        return state if plateau is None else dataclasses.replace(state, plateau=replicate(mesh, plateau))

    def forget(self, *, after: int) -> None:
        """Forgets the tests of later steps than `after`."""
        self.plateaus = {step: plateau for step, plateau in self.plateaus.items() if step <= after}


@dataclasses.dataclass(frozen=True)
class NonFiniteCase:
    """What happened.

    Attributes:
      error: the number, and the step at which it was seen.
      step: the step whose batch did it.
      spoilt: whether the loss of that step was still finite and its update was not: then that has been made.
      state: the one before that step; None where it is gone.
    """

    error: NonFiniteError
    step: int
    spoilt: bool
    state: TrainState | None


def set_step(state: TrainState, step: int, mesh: Mesh) -> TrainState:
    """Returns the state with another count of its updates."""
    return dataclasses.replace(state, step=replicate(mesh, np.int32(step)))


def locate(error: NonFiniteError, state: TrainState, mesh: Mesh) -> NonFiniteCase:
    """Finds the step behind `error`, from the state that the run came to; all processes must call it."""
    step = int(state.step)
    if step < 0:  # frozen, see state.frozen: steps may change it again
        step = -step - 1
        state = set_step(state, step, mesh)
    # A loss is that before the step's update, a test's that after it: then the step behind it was made.
    spoilt = error.step <= step or not _is_finite(state)
    return NonFiniteCase(error, step, True, None) if spoilt else NonFiniteCase(error, step + 1, False, state)


@jax.jit
def _finite(state: TrainState) -> Array:
    finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state)]).all()
    return finite & (state.step >= 0)


def _is_finite(state: TrainState) -> bool:
    """Tells whether all that the state holds is finite, and no loss has frozen it."""
    return bool(_finite(state))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recovery:
    """The way back to a state that is gone: from the last checkpoint, by making the steps since then again.

    Batches, dropout and lighting are functions of the seed and the step, so on the same mesh the same bits come out;
    `History` has what else has made the state.

    Attributes:
      run, workdir, logger, preemption, checkpointer, history: the run's.
      batches: the run's batches after a number of updates.
      records: the records, int (b,), indices in the training split, of the batch after a number of updates.
      restore: the newest whole checkpoint's state, or the fresh one; raises InputError where all are damaged.
    """

    run: Run
    workdir: pathlib.Path
    logger: RunLogger
    preemption: Preemption
    checkpointer: Checkpointer
    history: History
    batches: Callable[[int], Iterator[Batch]]
    records: Callable[[int], np.ndarray]
    restore: Callable[[], TrainState]

    def recover(self, error: NonFiniteError, state: TrainState, update: Any, *, last_time: bool) -> TrainState:
        """Does what the config says about non-finite numbers.

        Args:
          error: the number.
          state: that after the last step sent off.
          update: the compiled training step.
          last_time: whether to stop whatever the config says.

        Returns:
          The state to go on from.

        Raises:
          InputError: the run stops.
          Interrupted: it was told to stop; there is nothing more to save.
        """
        case = locate(error, state, self.run.mesh)
        action = 'stop' if last_time else self.run.config.on_non_finite
        if case.spoilt and action != 'roll_back':
            case = self._remake(case, update)
        file = record_non_finite(self.workdir, case, action, records=self.records(case.step - 1))
        if action == 'roll_back':
            state = self._roll_back()
            since = self.history.since
            self.logger.rewind(since)
            self.logger.info(f'warning: {error}: back to step {since}, with another order of the images')
            return state
        if case.state is not None and action == 'skip':
            state = self._skip(case, case.state)
            if case.spoilt:
                self.logger.rewind(case.step)  # steps after it may have been logged
            batch = f'the batch of step {case.step}' if case.spoilt else 'its batch'
            self.logger.info(f'warning: {error}: {batch} is left out; {file} names the images')
            return state
        if case.state is not None:
            self.checkpointer.save(case.state, data_order=self.history.data_order)
        raise InputError(format_stop(case, file)) from error

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

    def _roll_back(self) -> TrainState:
        """Goes back to the last checkpoint, from which the run takes another way."""
        state = self._restore_last()
        self.history.data_order += 1
        self.history.since = int(state.step)
        self.history.forget(after=self.history.since)
        return state

    def _skip(self, case: NonFiniteCase, before: TrainState) -> TrainState:
        """Returns the state after the step of `case`, made without its batch from the one before."""
        self.history.forget(after=case.step - 1)
        self.history.skipped.add(case.step)
        return set_step(before, case.step, self.run.mesh)

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
            if self.preemption.requested():
                raise Interrupted(NOTHING_NEW)
            if step in self.history.skipped:
                state, batches = set_step(state, step, mesh), None  # nor is its batch made
            else:
                batches = batches or self.batches(step - 1)
                state, _ = update(state, next(batches))
                if not _is_finite(state):
                    return self._remake(dataclasses.replace(case, step=step), update)
            state = self.history.restore_plateau(state, mesh)
        return dataclasses.replace(case, state=state)


def record_non_finite(workdir: pathlib.Path, case: NonFiniteCase, action: str, *, records: np.ndarray) -> pathlib.Path:
    """Adds a line to WORKDIR/non_finite.jsonl: the step, the number, what was done, and the images of the batch.

    Args:
      workdir: the run folder.
      case: what happened.
      action: 'stop', 'skip' or 'roll_back'.
      records: int (b,), indices in the training split.
    """
    path = workdir / FILE
    if jax.process_index() == 0:
        line = {
            'step': case.step,
            'number': case.error.name,
            'value': str(case.error.value),
            'action': action,
            'records': records.tolist(),
        }
        with path.open('a') as file:
            file.write(json.dumps(line) + '\n')
    return path


def format_stop(case: NonFiniteCase, file: pathlib.Path) -> str:
    """Formats what the person reads when the run ends here."""
    spoilt = f'the update of step {case.step} spoilt the parameters, ' if case.spoilt else ''
    before = 'the checkpoints before it are kept'
    if case.state is not None:
        before = f'the state before it is checkpoint {int(case.state.step)}'
    return (
        f'{case.error}: stopped; {spoilt}{before}, {file} names the images of the batch; '
        f'try a lower --config.learning_rate, in a new --workdir'
    )
