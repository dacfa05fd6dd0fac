"""What to do when a number is not one any more: find the step that did it, name its images, keep the state before."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax import Array
from jax.sharding import Mesh

from alexnet_jax import InputError, Interrupted
from alexnet_jax.data.source import Dataset
from alexnet_jax.parallel.mesh import replicate
from alexnet_jax.training.batches import batches_of, placed_batches
from alexnet_jax.training.interruption import NOTHING, Interruption
from alexnet_jax.training.logbook import Logbook
from alexnet_jax.training.origin import open_state
from alexnet_jax.training.saving import Saving
from alexnet_jax.training.schedule import Plateau
from alexnet_jax.training.state import TrainState
from alexnet_jax.training.step import Batch
from alexnet_jax.training.watch import Diverged

FILE = 'bad_numbers.jsonl'


@dataclasses.dataclass(frozen=True)
class Case:
    """What happened.

    Attributes:
      bad: the number, and the step at which it was seen.
      step: the step whose batch did it.
      spoilt: whether the loss of that step was still a number and its update was not: then that has been made.
      state: the one before that step; None where it is gone.
    """

    bad: Diverged
    step: int
    spoilt: bool
    state: TrainState | None


def at_step(state: TrainState, step: int, mesh: Mesh) -> TrainState:
    """The state with another count of its updates."""
    return dataclasses.replace(state, step=replicate(mesh, np.int32(step)))


def look_at(bad: Diverged, state: TrainState, mesh: Mesh) -> Case:
    """Finds the step behind `bad`, from the state that the run came to; all processes must ask."""
    step = int(state.step)
    if step < 0:  # frozen, see state.frozen: steps may change it again
        step = -step - 1
        state = at_step(state, step, mesh)
    # A loss is that before the step's update, a test's that after it: then the step behind it was made.
    spoilt = bad.step <= step or not _is_sound(state)
    return Case(bad, step, True, None) if spoilt else Case(bad, step + 1, False, state)


@jax.jit
def _sound(state: TrainState) -> Array:
    finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state)]).all()
    return finite & (state.step >= 0)


def _is_sound(state: TrainState) -> bool:
    """Whether all that it holds are numbers, and no loss has frozen it."""
    return bool(_sound(state))


@dataclasses.dataclass(kw_only=True)
class Recovery:
    """The way back to a state that is gone: from the last checkpoint, by making the steps since then again.

    Batches, dropout and lighting are functions of the seed and the step, so on the same mesh the same bits come out.
    What else has made the state is kept here.

    Attributes:
      data_order: how often the run was rolled back: each time its images come in another order.
      since: the step at which this process began, or to which it was rolled back: what was before is not known.
      plateaus: {step: the learning-rate rule's memory after the test of it}.
      left_out: the steps whose batches were skipped.
    """

    config: ml_collections.ConfigDict
    dataset: Dataset
    mesh: Mesh
    workdir: pathlib.Path
    interruption: Interruption
    saving: Saving
    log: Logbook
    data_order: int
    since: int
    plateaus: dict[int, Plateau] = dataclasses.field(default_factory=dict)
    left_out: set[int] = dataclasses.field(default_factory=set)

    def batches_from(self, step: int) -> Iterator[Batch]:
        """The run's batches after `step` updates; see placed_batches."""
        return placed_batches(self.config, self.dataset, self.mesh, start=step, data_order=self.data_order)

    def recover(self, bad: Diverged, state: TrainState, update: Any, *, last_time: bool) -> TrainState:
        """What the config says about numbers that are none.

        Args:
          bad: the number.
          state: that after the last step sent off.
          update: the compiled training step.
          last_time: whether to stop whatever the config says.

        Returns:
          The state to go on from.

        Raises:
          InputError: the run stops.
          Interrupted: it was told to stop; there is nothing more to save.
        """
        case = look_at(bad, state, self.mesh)
        action = 'stop' if last_time else self.config.on_bad_numbers
        if case.spoilt and action != 'roll_back':
            case = self._made_again(case, update)
        batches = batches_of(self.config, self.dataset, data_order=self.data_order)
        file = note(self.workdir, case, action, records=batches.records(case.step - 1))
        if action == 'roll_back':
            state = self._roll_back()
            self.log.rewind(self.since)
            self.log.say(f'warning: {bad}: back to step {self.since}, with another order of the images')
            return state
        if case.state is not None and action == 'skip':
            state = self._leave_out(case, case.state)
            if case.spoilt:
                self.log.rewind(case.step)  # steps after it may have been logged
            batch = f'the batch of step {case.step}' if case.spoilt else 'its batch'
            self.log.say(f'warning: {bad}: {batch} is left out; {file} names the images')
            return state
        if case.state is not None:
            self.saving.save(case.state, data_order=self.data_order)
        raise InputError(stop_line(case, file)) from bad

    def _last_checkpoint(self) -> TrainState:
        """The newest whole one, or the fresh state with which this process began."""
        self.saving.wait()  # the one being written may be the newest
        parts = (self.config, self.dataset, self.mesh, self.saving.checkpoints)
        try:
            state, _, _ = open_state(*parts)
        except InputError:
            if self.since:
                raise
            state, _, _ = open_state(*parts)  # without those that are set aside now, from the beginning
        return self._as_tested(state)

    def _roll_back(self) -> TrainState:
        """The last checkpoint, from which the run takes another way."""
        state = self._last_checkpoint()
        self.data_order += 1
        self.since = int(state.step)
        self._forget(after=self.since)
        return state

    def _leave_out(self, case: Case, before: TrainState) -> TrainState:
        """The state after the step of `case`, made without its batch from the one before."""
        self._forget(after=case.step - 1)
        self.left_out.add(case.step)
        return at_step(before, case.step, self.mesh)

    def _made_again(self, case: Case, update: Any) -> Case:
        """`case`, of which the state is gone, with that state, where all that led to it is known.

        An infinite parameter may stay out of the losses for some steps: named is the first step whose update was none.
        """
        state, last = self._last_checkpoint(), case.step - 1
        start, batches = int(state.step), None
        if not self.since <= start <= last:
            return case
        again = f', from which steps {start + 1} to {last} are made again' if start < last else ''
        self.log.say(
            f'warning: {case.bad}: the update of step {case.step} spoilt the parameters; back to step {start}{again}'
        )
        for step in range(start + 1, case.step):
            if self.interruption.requested():
                raise Interrupted(NOTHING)
            if step in self.left_out:
                state, batches = at_step(state, step, self.mesh), None  # nor is its batch made
            else:
                batches = batches or self.batches_from(step - 1)
                state, _ = update(state, next(batches))
                if not _is_sound(state):
                    return self._made_again(dataclasses.replace(case, step=step), update)
            state = self._as_tested(state)
        return dataclasses.replace(case, state=state)

    def _as_tested(self, state: TrainState) -> TrainState:
        """With the learning-rate rule's memory after the test of its step, where there was one."""
        plateau = self.plateaus.get(int(state.step))
        return state if plateau is None else dataclasses.replace(state, plateau=replicate(self.mesh, plateau))

    def _forget(self, *, after: int) -> None:
        self.plateaus = {step: plateau for step, plateau in self.plateaus.items() if step <= after}


def note(workdir: pathlib.Path, case: Case, action: str, *, records: np.ndarray) -> pathlib.Path:
    """Adds a line to WORKDIR/bad_numbers.jsonl: the step, the number, what was done, and the images of the batch.

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
            'number': case.bad.name,
            'value': str(case.bad.value),
            'action': action,
            'records': records.tolist(),
        }
        with path.open('a') as file:
            file.write(json.dumps(line) + '\n')
    return path


def stop_line(case: Case, file: pathlib.Path) -> str:
    """What the person reads when the run ends here."""
    spoilt = f'the update of step {case.step} spoilt the parameters, ' if case.spoilt else ''
    before = 'the checkpoints before it are kept'
    if case.state is not None:
        before = f'the state before it is checkpoint {int(case.state.step)}'
    return (
        f'{case.bad}: stopped; {spoilt}{before}, {file} names the images of the batch; '
        f'try a lower --config.learning_rate, in a new --workdir'
    )
