"""Tests a run's state on its validation split, and on training images: logged, interruptible, summed up at the end."""

import dataclasses
import time
from typing import Any

from alexnet_jax.checkpoints.hashes import hash_tree
from alexnet_jax.data.dataset import Dataset
from alexnet_jax.data.pipeline import choose_records
from alexnet_jax.distributed.hosts import fetch
from alexnet_jax.distributed.phases import PROGRESS
from alexnet_jax.distributed.preemption import Preemption
from alexnet_jax.errors import InputError
from alexnet_jax.evaluation.evaluator import Evaluator, Result
from alexnet_jax.logs.logger import RunLogger
from alexnet_jax.logs.monitors import check_finite
from alexnet_jax.logs.timing import Stopwatch
from alexnet_jax.model.colour import tower_colours
from alexnet_jax.training.build import Run
from alexnet_jax.training.config import Config
from alexnet_jax.training.state import TrainState


def choose_training_images(config: Config, dataset: Dataset) -> list[int]:
    """Chooses the training images that each validation is repeated on, whatever the seed is; [] for none.

    Raises:
      InputError: there are fewer than `config` asks for, or one cannot be read.
    """
    count, examples = config.test_training_images, dataset.examples('train')
    if count > examples:
        raise InputError(
            f'config.test_training_images is {count:,}, and dataset {dataset.name} has {examples:,} training images: '
            f'use at most that'
        )
    return choose_records(dataset.records('train'), count) if count else []


class TestStoppedError(Exception):
    """A test was stopped by a signal."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tester:
    """Tests states of a run."""

    run: Run
    evaluate: Evaluator
    evaluate_training: Evaluator | None  # on `choose_training_images`; None: those are not tested
    logger: RunLogger
    preemption: Preemption

    def test(self, state: TrainState, protocol: str) -> Result:
        """Tests `state` on validation images under 'centre' or 'ten_view', logs the result and returns it.

        The centre test is repeated on training images where the run asks for it, which is logged with the gap: how
        much higher validation's top-1 error is.

        Raises:
          NonFiniteError: the loss is not finite: the last update was too large.
          TestStoppedError: the run was told to stop.
        """
        step = int(state.step)
        result, seconds = self._evaluate(self.evaluate, state, protocol)
        check_finite(step, result.loss, 'validation loss')
        figures = dataclasses.asdict(result)
        if protocol == 'centre' and self.run.variant.towers > 1:  # how far the towers have specialised
            figures |= tower_colours(fetch(state.params['conv1']['kernel']))
        self.logger.log_test(step, protocol, figures, seconds=seconds)
        if protocol == 'centre' and self.evaluate_training is not None:
            training, seconds = self._evaluate(self.evaluate_training, state, protocol)
            check_finite(step, training.loss, 'loss on training images')
            figures = dataclasses.asdict(training) | {'top1_gap': result.top1_error - training.top1_error}
            self.logger.log_test(step, protocol, figures, seconds=seconds, split='training_images')
        return result

    def _evaluate(self, evaluate: Evaluator, state: TrainState, protocol: str) -> tuple[Result, float]:
        """Evaluates `state`; returns the result and the seconds that it took."""

        def progress(done: int) -> None:
            self.logger.test_progress(protocol, done, evaluate.examples)
            if self.preemption.requested():
                raise TestStoppedError

        began = time.perf_counter()
        PROGRESS.enter(f'{protocol} test after step {int(state.step)}')
        result = evaluate(state.params, state.mean_image, protocol=protocol, progress=progress)
        return result, time.perf_counter() - began

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
