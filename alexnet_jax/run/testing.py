"""Tests a run's state on its validation split: logged, interruptible, and summed up at the end."""

import dataclasses
import time
from typing import Any

from alexnet_jax.checkpoints.hashes import hash_tree
from alexnet_jax.distributed.hosts import fetch
from alexnet_jax.distributed.phases import PROGRESS
from alexnet_jax.distributed.preemption import Preemption
from alexnet_jax.evaluation.evaluator import Evaluator, Result
from alexnet_jax.logs.logger import RunLogger
from alexnet_jax.logs.monitors import check_finite
from alexnet_jax.logs.timing import Stopwatch
from alexnet_jax.model.colour import tower_colours
from alexnet_jax.training.build import Run
from alexnet_jax.training.state import TrainState


class TestStoppedError(Exception):
    """A test was stopped by a signal."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tester:
    """Tests states of a run."""

    run: Run
    evaluate: Evaluator
    logger: RunLogger
    preemption: Preemption

    def test(self, state: TrainState, protocol: str) -> Result:
        """Tests `state` under 'centre' or 'ten_view' and logs the result.

        Raises:
          NonFiniteError: the loss is not finite: the last update was too large.
          TestStoppedError: the run was told to stop.
        """

        def progress(done: int) -> None:
            self.logger.test_progress(protocol, done, self.evaluate.examples)
            if self.preemption.requested():
                raise TestStoppedError

        began, step = time.perf_counter(), int(state.step)
        PROGRESS.enter(f'{protocol} test after step {step}')
        result = self.evaluate(state.params, state.mean_image, protocol=protocol, progress=progress)
        seconds = time.perf_counter() - began
        check_finite(step, result.loss, 'validation loss')
        figures = dataclasses.asdict(result)
        if protocol == 'centre' and self.run.variant.towers > 1:  # how far the towers have specialised
            figures |= tower_colours(fetch(state.params['conv1']['kernel']))
        self.logger.log_test(step, protocol, figures, seconds=seconds)
        return result

    def make_result(self, state: TrainState, centre: Result | None, stopwatch: Stopwatch) -> dict[str, Any]:
        """Makes what is written to result.json of the final state; `centre` is its test, None where there was none.

        Raises:
          TestStoppedError: the run was told to stop.
        """
        tests = [centre or self.test(state, 'centre'), self.test(state, 'ten_view')]
        images = stopwatch.images
        return {
            'centre': dataclasses.asdict(tests[0]),
            'ten_view': dataclasses.asdict(tests[1]),
            'steps': int(state.step),
            'images_per_second': images / stopwatch.seconds if images else None,
            'data_wait': stopwatch.get_data_wait() if images else None,
            'params_sha256': hash_tree(fetch(state.params)),
        }
