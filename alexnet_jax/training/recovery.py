"""What to do when a number is not one any more: find the step that did it, name its images, keep the state before."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import jax
import numpy as np
from jax.sharding import Mesh

from alexnet_jax.parallel.mesh import replicate
from alexnet_jax.parallel.processes import gather
from alexnet_jax.training.digests import pieces
from alexnet_jax.training.state import TrainState
from alexnet_jax.training.watch import Diverged

FILE = 'bad_numbers.jsonl'


@dataclasses.dataclass(frozen=True)
class Case:
    """What happened.

    Attributes:
      bad: the number, and the step at which it was seen.
      step: the step whose batch did it.
      state: the state as it is, which no step after the bad one has changed.
      whole: whether it is the state before the bad step, and all its parameters are numbers. Otherwise the loss of that
        step was still a number when its update was not, and the state before is gone.
    """

    bad: Diverged
    step: int
    state: TrainState
    whole: bool


def thawed(state: TrainState, mesh: Mesh) -> TrainState:
    """A state that steps may change again; see state.frozen."""
    step = int(state.step)
    return dataclasses.replace(state, step=replicate(mesh, np.int32(-step - 1 if step < 0 else step)))


def look_at(bad: Diverged, state: TrainState) -> Case:
    """Finds the step behind `bad`: all processes must ask, with the thawed state that the run came to."""
    mine = all(np.isfinite(value).all() for _, value in pieces(state.params, every_copy=False))
    whole = 'no' not in gather('finite', 'yes' if mine else 'no')
    # A loss is that before the step's update, a test's that after it: then the step behind it was made.
    whole = whole and bad.step > int(state.step)
    return Case(bad, int(state.step) + whole, state, whole)


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
    if case.whole:
        before = f'the state before it is checkpoint {int(case.state.step)}'
    else:
        before = f'the update of step {case.step} spoilt the parameters, the checkpoints before it are kept'
    return (
        f'{case.bad}: stopped; {before}, {file} names the images of the batch; '
        f'try a lower --config.learning_rate, in a new --workdir'
    )
