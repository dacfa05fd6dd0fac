"""The training loop. After each step, in this order:

update      One step is dispatched to the devices, and the host goes on while they compute.
read        The metrics of the step LAG steps before are read and logged, so that logging never blocks the devices.
test        Where due, all metrics are read, then the validation split is tested under the centre protocol, and so are
            training images where `config.test_training_images` asks for it.
plateau     The learning-rate rule learns of the error (paper section 5).
checkpoint  Holds all of this, so that a run resumed from it goes on, bit for bit, as if it had never stopped.

A signal stops the run between two steps or within a test; a non-finite loss goes to `Recovery`.
"""

import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import jax
import numpy as np

from alexnet_jax.checkpoints.checkpointer import Checkpointer
from alexnet_jax.distributed.hosts import sync_hosts
from alexnet_jax.distributed.phases import PROGRESS
from alexnet_jax.distributed.preemption import Preemption
from alexnet_jax.errors import Interrupted
from alexnet_jax.evaluation.evaluator import Result
from alexnet_jax.logs.logger import RunLogger
from alexnet_jax.logs.metrics_reader import MetricsReader
from alexnet_jax.logs.monitors import NonFiniteError, StepMonitor
from alexnet_jax.logs.profiling import Profile
from alexnet_jax.logs.timing import StartupTimer, Stopwatch
from alexnet_jax.run.recovery import History, Recovery
from alexnet_jax.run.testing import Tester, TestStoppedError
from alexnet_jax.sharding.backend import release_free_memory
from alexnet_jax.sharding.mesh import replicate
from alexnet_jax.training.build import Run
from alexnet_jax.training.layer_probe import compile_layer_probe
from alexnet_jax.training.schedule import update_plateau
from alexnet_jax.training.state import TrainState
from alexnet_jax.training.step import Batch


@dataclasses.dataclass(kw_only=True)
class Trainer:
    """Trains; `state` is the state after the last step dispatched."""

    run: Run
    workdir: pathlib.Path
    state: TrainState
    batches: Callable[[int], Iterator[Batch]]
    tester: Tester
    checkpointer: Checkpointer
    logger: RunLogger
    preemption: Preemption
    history: History
    recovery: Recovery
    startup: StartupTimer
    train_step: Any  # the jitted step of `Run.make_train_step`, maybe another seed's
    stopwatch: Stopwatch = dataclasses.field(default_factory=Stopwatch)

    def train(self, *, tested: bool) -> Result | None:
        """Makes the steps that are left, one at least; returns the centre test of the last.

        `tested` is False where the run that made the checkpoint was told to stop before the test of that step.
        """
        batches = self.batches(int(self.state.step))
        batch = next(batches)
        self.startup.lap('data')
        probe = compile_layer_probe(self.run, self.state, batch)
        seed = replicate(self.run.mesh, np.int32(self.run.config.seed))  # an argument: one program serves all seeds
        program = self.startup.compile(self.train_step.lower(self.state, batch, seed))

        def update(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Any]]:
            return program(state, batch, seed)

        release_free_memory()  # what compiling took
        sync_hosts('compiled')  # else Gloo fails where the first message between CPUs is waited for longer than 30 s
        self.preemption.idle = False
        if not tested:
            self._test_and_save(at_test=True, at_save=False)
        with StepMonitor(self.logger.info) as monitor:
            for left in reversed(range(self.run.config.max_non_finite + 1)):
                on_first = functools.partial(self.startup.log, self.workdir / 'startup.json', self.logger.info)
                reader = MetricsReader(self.run, self.logger, monitor, self.stopwatch, on_first)
                try:
                    return self._make_steps(update, probe, batches, batch, reader)
                except NonFiniteError as error:
                    monitor.pause()
                    self.state = self.recovery.recover(error, self.state, update, last_time=not left)
                batches = self.batches(int(self.state.step))
                batch = next(batches)
        raise AssertionError('recover raises the last time')

    def _make_steps(
        self, update: Any, probe: Any, batches: Iterator[Batch], batch: Batch, reader: MetricsReader
    ) -> Result | None:
        centre, start = None, int(self.state.step)
        if start in self.history.skipped:  # what follows a step follows that one too
            centre = self._test_and_save(**self.run.get_due(start))
        reader.resume()
        folder, traced = self.workdir / 'profile', self.run.config.profile
        with Profile(folder, steps=traced, after=start, settle=reader.settle, info=self.logger.info) as profile:
            for step in range(start + 1, self.run.steps + 1):
                PROGRESS.enter(f'step {step}', slow=False)
                # What moves between host and devices here is moved by name: nothing slips in that makes a step wait.
                with jax.transfer_guard('disallow'), profile.step(step):
                    probed = probe(step, self.state, batch)  # before the step uses up the state
                    self.state, metrics = update(self.state, batch)
                    PROGRESS.enter(f'batch after step {step}')
                    batch = self._next(batches, metrics)
                    PROGRESS.enter(f'step {step}', slow=False)
                    reader.add(step, metrics, probed)
                due, stop = self.run.get_due(step), self.preemption.requested()
                if stop or any(due.values()):
                    reader.catch_up()  # a state whose loss is not finite must not be saved
                    if stop:
                        self._stop(tested=not due['at_test'])
                    centre = self._test_and_save(**due)
                    reader.resume()
        return centre

    def _next(self, batches: Iterator[Batch], metrics: dict[str, Any]) -> Batch:
        """Gets the next batch; counts the time as waiting where the step just dispatched ended before it came.

        Then the devices had nothing to do in some of this time, or in all of it: never less than they did wait.
        """
        began = time.perf_counter()
        batch = next(batches)
        if metrics['loss'].is_ready():
            self.stopwatch.waited += time.perf_counter() - began
        return batch

    def _test_and_save(self, *, at_test: bool, at_save: bool) -> Result | None:
        centre = error = None
        if at_test:
            try:
                centre = self.tester.test(self.state, 'centre')
            except TestStoppedError:
                self._stop(tested=False)
            error, before, config = centre.top1_error, self.state.plateau, self.run.config
            plateau = update_plateau(before, error, patience=config.patience, max_drops=config.max_drops)
            at_save |= float(plateau.best_error) < float(before.best_error)  # the best is kept
            self.history.plateaus[int(self.state.step)] = plateau
            self.state = dataclasses.replace(self.state, plateau=replicate(self.run.mesh, plateau))
        if at_save:
            PROGRESS.enter(f'checkpoint {int(self.state.step)}')
            self.checkpointer.save(self.state, top1_error=error, data_order=self.history.data_order)
        return centre

    def _stop(self, *, tested: bool) -> NoReturn:
        """Saves what is not saved yet, which must succeed here, and ends the run as it was told to."""
        PROGRESS.enter(f'checkpoint {int(self.state.step)}')
        self.checkpointer.save_now(self.state, tested=tested, data_order=self.history.data_order)
        raise Interrupted(f'saved step {int(self.state.step)}')
