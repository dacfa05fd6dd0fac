"""The run: batches in, updates, now and then a test and a checkpoint, at the end the result."""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, Protocol

import jax
import ml_collections
from jax import Array
from jax.sharding import Mesh

from alexnet_jax import Interrupted
from alexnet_jax.data.source import Dataset
from alexnet_jax.model.filters import tower_colours
from alexnet_jax.parallel.allocator import release_free_memory
from alexnet_jax.parallel.mesh import replicate
from alexnet_jax.parallel.processes import fetch
from alexnet_jax.training import schedule
from alexnet_jax.training.checkpoint import Checkpoints
from alexnet_jax.training.config import steps_per_epoch, total_steps
from alexnet_jax.training.digests import tree_hash
from alexnet_jax.training.interruption import Interruption
from alexnet_jax.training.logbook import Logbook, Stopwatch, clock, to_stderr
from alexnet_jax.training.metrics import MetricsReader
from alexnet_jax.training.origin import open_state
from alexnet_jax.training.profiling import Profile
from alexnet_jax.training.recipe import dtype_of, layer_factors_of, optimizer_of, plan_of, schedule_of, variant_of
from alexnet_jax.training.recovery import Recovery
from alexnet_jax.training.saving import Saving
from alexnet_jax.training.startup import StartUp
from alexnet_jax.training.state import TrainState
from alexnet_jax.training.step import Batch, make_train_step
from alexnet_jax.training.tracking import Tracking
from alexnet_jax.training.watch import Diverged, LossWatch, StepWatch, check_finite
from alexnet_jax.training.workdir import write_json


class Evaluate(Protocol):
    """Tests parameters on the validation split: evaluation.evaluate.Evaluator."""

    def __call__(self, params: Any, mean_image: Array, *, protocol: str, progress: Callable[[int], None]) -> Any:
        """Returns a dataclass with `examples`, `loss`, `top1_error`, `top5_error`."""
        ...


def run(
    config: ml_collections.ConfigDict,
    *,
    dataset: Dataset,
    mesh: Mesh,
    evaluate: Evaluate,
    workdir: pathlib.Path,
    start_up: StartUp,
    interruption: Interruption,
) -> dict[str, Any]:
    """Trains to the end, from the newest whole checkpoint in `workdir` where there is one.

    Returns:
      What is written to WORKDIR/result.json: both protocols, 'steps', 'images_per_second' (training only; None if
      nothing was left to train), 'data_wait' (the share of that time in which devices may have waited for a batch) and
      'params_sha256'.

    Raises:
      InputError: no checkpoint can be used, one could not be written, or a loss is not a number.
      Interrupted: `interruption` was told to stop; everything is saved.
    """
    steps, silent = total_steps(config, dataset.examples('train')), jax.process_index() > 0
    with Checkpoints(workdir, keep=config.keep_checkpoints) as checkpoints:
        state, data_order, tested = open_state(config, dataset, mesh, checkpoints)
        start = int(state.step)
        if start and not silent:
            to_stderr(f'resuming from step {start} of {steps}')
        if start < steps and not silent:
            to_stderr(plan_of(config, examples=dataset.examples('train')))
            (workdir / 'result.json').unlink(missing_ok=True)  # of a run that was shorter: not of what is to come
        start_up.lap('state')
        with Tracking(config, workdir, start=start, silent=silent) as tracking, Logbook(
            workdir, start_step=start, total_steps=steps, batch_size=config.batch_size, silent=silent,
            patient=config.on_failed_save == 'continue', track=tracking.log,
        ) as log:  # fmt: skip
            start_up.lap('log')
            interruption.say = tracking.say = log.say
            this = _Run(
                config=config,
                dataset=dataset,
                mesh=mesh,
                evaluate=evaluate,
                workdir=workdir,
                start_up=start_up,
                interruption=interruption,
                saving=(saving := Saving(config, checkpoints, log.say)),
                log=log,
                recovery=Recovery(
                    config=config,
                    dataset=dataset,
                    mesh=mesh,
                    workdir=workdir,
                    interruption=interruption,
                    saving=saving,
                    log=log,
                    since=start,
                    data_order=data_order,
                ),
                state=state,
            )
            centre = this.train(start, steps, tested=tested) if start < steps else None
            result = this.result(centre)
            tracking.result(result)
    if not silent:
        write_json(workdir / 'result.json', result)
    return result


class _Stopped(Exception):
    """A test was told to stop."""


@dataclasses.dataclass(kw_only=True)
class _Run:
    """What training, testing and saving share; `state` is that after the last step sent off."""

    config: ml_collections.ConfigDict
    dataset: Dataset
    mesh: Mesh
    evaluate: Evaluate
    workdir: pathlib.Path
    start_up: StartUp
    interruption: Interruption
    saving: Saving
    log: Logbook
    recovery: Recovery
    state: TrainState
    stopwatch: Stopwatch = dataclasses.field(default_factory=Stopwatch)

    def train(self, start: int, steps: int, *, tested: bool) -> Any:
        """From `start` updates made to `steps`, at least one more; the centre test of the last.

        `tested` is False where the run that came to `start` was told to stop before it had tested that step.
        """
        batches = self.recovery.batches_from(start)
        batch = next(batches)
        self.start_up.lap('data')
        update = self.start_up.compile(self._train_step().lower(self.state, batch))
        release_free_memory()  # what compiling took
        self.interruption.idle = False
        if not tested:
            self._test_and_save(at_test=True, at_save=False)
        with StepWatch(self.log.say) as watch:
            for left in reversed(range(self.config.max_bad_numbers + 1)):
                reader = MetricsReader(
                    self.config, self.log, LossWatch(len(self.dataset.classes)), watch, self.stopwatch, self._started
                )
                try:
                    return self._steps(update, batches, batch, reader, steps=range(start + 1, steps + 1))
                except Diverged as bad:
                    watch.pause()
                    self.state = self.recovery.recover(bad, self.state, update, last_time=not left)
                start = int(self.state.step)
                batches = self.recovery.batches_from(start)
                batch = next(batches)
        raise AssertionError('recover raises the last time')

    def _steps(
        self, update: Any, batches: Iterator[Batch], batch: Batch, reader: MetricsReader, *, steps: range
    ) -> Any:
        """Makes `steps`; the centre test of the last."""
        centre = None
        if (before := steps.start - 1) in self.recovery.left_out:  # what follows a step follows that one too
            at_test, at_save = self._due(before, last=steps.stop - 1)
            centre = self._test_and_save(at_test=at_test, at_save=at_save)
        reader.resume()
        with Profile(
            self.workdir / 'profile',
            steps=self.config.profile,
            after=before,
            settle=reader.settle,
            say=self.log.say,
        ) as profile:
            for step in steps:
                # What moves between host and devices here is moved by name: nothing slips in that makes a step wait.
                with jax.transfer_guard('disallow'), profile.step(step):
                    self.state, metrics = update(self.state, batch)
                    batch = self._next(batches, metrics)
                    reader.add(step, metrics)
                at_test, at_save = self._due(step, last=steps.stop - 1)
                stop = self.interruption.requested()
                if at_test or at_save or stop:
                    reader.catch_up()  # a state whose loss is not a number must not be saved
                    if stop:
                        self._leave(tested=not at_test)
                    centre = self._test_and_save(at_test=at_test, at_save=at_save)
                    reader.resume()
        return centre

    def _due(self, step: int, *, last: int) -> tuple[bool, bool]:
        """Whether a test and a checkpoint follow `step`."""
        per_epoch = steps_per_epoch(self.config, self.dataset.examples('train'))
        every = (self.config.evaluate_every or per_epoch, self.config.checkpoint_every or per_epoch)
        at_test, at_save = (step % steps == 0 or step == last for steps in every)
        return at_test, at_save

    def _next(self, batches: Iterator[Batch], metrics: dict[str, Any]) -> Batch:
        """The next batch; on the stopwatch as waited for where the step that was just dispatched ended before it came.

        Then the devices had nothing to do in some of this time, or in all of it: never less than they did wait.
        """
        began = time.perf_counter()
        batch = next(batches)
        if metrics['loss'].is_ready():
            self.stopwatch.waited += time.perf_counter() - began
        return batch

    def _train_step(self) -> Any:
        return make_train_step(
            variant_of(self.config),
            optimizer_of(self.config),
            schedule_of(self.config, examples=self.dataset.examples('train')),
            self.mesh,
            num_classes=len(self.dataset.classes),
            seed=self.config.seed,
            dtype=dtype_of(self.config),
            clip_norm=self.config.clip_norm,
            slowed=layer_factors_of(self.config, examples=self.dataset.examples('train')),
        )

    def _started(self) -> None:
        if 'step' in self.start_up.account()['parts']:  # after a recovery
            return
        self.start_up.lap('step')
        self.log.say(self.start_up.line())
        if jax.process_index() == 0:
            write_json(self.workdir / 'startup.json', self.start_up.account())

    def _test_and_save(self, *, at_test: bool, at_save: bool) -> Any:
        """The order matters: after the update the test, then the learning-rate rule learns of it, then the checkpoint.

        So that holds all three, and a run resumed from it continues as if it had never stopped.
        """
        centre = error = None
        if at_test:
            try:
                centre = self._test('centre')
            except _Stopped:
                self._leave(tested=False)
            error, before = centre.top1_error, self.state.plateau
            plateau = schedule.observe(before, error, patience=self.config.patience, max_drops=self.config.max_drops)
            at_save |= float(plateau.best_error) < float(before.best_error)  # the best is kept
            self.recovery.plateaus[int(self.state.step)] = plateau
            self.state = dataclasses.replace(self.state, plateau=replicate(self.mesh, plateau))
        if at_save:
            self._save(top1_error=error)
        return centre

    def _save(self, **seal: Any) -> None:
        self.saving.save(self.state, data_order=self.recovery.data_order, **seal)

    def _leave(self, *, tested: bool) -> NoReturn:
        """Saves what there is and ends the run as it was told to."""
        self._save_at_last(tested=tested)
        raise Interrupted(f'saved step {int(self.state.step)}')

    def _save_at_last(self, *, tested: bool) -> None:
        """Saves what is not saved yet. Here a save that fails is an error, whatever `on_failed_save` says."""
        self.saving.wait()
        self.saving.checkpoints.save(self.state, data_order=self.recovery.data_order, tested=tested)
        self.saving.checkpoints.wait()

    def _test(self, protocol: str) -> Any:
        began, step = time.perf_counter(), int(self.state.step)
        show = self.log.testing(protocol, self.dataset.examples('validation'))

        def progress(done: int) -> None:
            show(done)
            if self.interruption.requested():
                raise _Stopped

        result = self.evaluate(self.state.params, self.state.mean_image, protocol=protocol, progress=progress)
        seconds = time.perf_counter() - began
        check_finite(step, result.loss, 'validation loss')  # the last update was too much
        figures = dataclasses.asdict(result)
        if protocol == 'centre' and variant_of(self.config).towers > 1:  # how far the towers have specialised
            figures |= tower_colours(fetch(self.state.params['conv1']['kernel']))
        self.log.evaluation(step, protocol, figures, seconds=seconds)
        return result

    def result(self, centre: Any) -> dict[str, Any]:
        """What `run` returns, for the final state; `centre` is its test where there was one."""
        images, seconds = self.stopwatch.images, self.stopwatch.seconds
        self.saving.wait()
        try:
            tests = [centre or self._test('centre'), self._test('ten_view')]
        except _Stopped:
            self._save_at_last(tested=True)
            raise Interrupted('all steps are made and saved, testing them is left') from None
        result = {
            'centre': dataclasses.asdict(tests[0]),
            'ten_view': dataclasses.asdict(tests[1]),
            'steps': int(self.state.step),
            'images_per_second': images / seconds if images else None,
            'data_wait': self.stopwatch.data_wait() if images else None,
            'params_sha256': tree_hash(fetch(self.state.params)),
        }
        self.log.say(
            f'trained {images // self.config.batch_size} steps in {clock(seconds)} (tests and saves apart), '
            f'{self.stopwatch.data_wait():.1%} of it waiting for data: '
            f'{self.workdir / "result.json"}'
        )
        return result
