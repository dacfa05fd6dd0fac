"""The run: batches in, updates, now and then a test and a checkpoint, at the end the result."""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax
import ml_collections
import numpy as np
from jax import Array
from jax.sharding import Mesh

from alexnet_jax.data.augment import centre_crop, lighting_basis
from alexnet_jax.data.pipeline import TrainingBatches, window_of
from alexnet_jax.data.source import Dataset
from alexnet_jax.parallel.allocator import release_free_memory
from alexnet_jax.parallel.mesh import place_batch
from alexnet_jax.training import schedule
from alexnet_jax.training.checkpoint import Checkpoints, tree_hash
from alexnet_jax.training.config import steps_per_epoch, total_steps
from alexnet_jax.training.logbook import Logbook, Stopwatch, clock, to_stderr
from alexnet_jax.training.metrics import MetricsReader
from alexnet_jax.training.profiling import Profile
from alexnet_jax.training.recipe import dtype_of, lit_steps_of, optimizer_of, schedule_of, variant_of
from alexnet_jax.training.startup import StartUp
from alexnet_jax.training.state import TrainState, abstract_state, create_state
from alexnet_jax.training.step import Batch, make_train_step
from alexnet_jax.training.watch import LossWatch, check_finite
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
) -> dict[str, Any]:
    """Trains to the end, from the newest checkpoint in `workdir` where there is one.

    Returns:
      What is written to WORKDIR/result.json: both protocols, 'steps', 'images_per_second' (training only; None if
      nothing was left to train), 'data_wait' (the share of that time in which devices may have waited for a batch) and
      'params_sha256'.

    Raises:
      InputError: a damaged checkpoint, or a loss that is not a number.
    """
    steps = total_steps(config, dataset.examples('train'))
    with Checkpoints(workdir, keep=config.keep_checkpoints) as checkpoints:
        state, start = _open_state(config, dataset, mesh, checkpoints)
        if start:
            to_stderr(f'resuming from step {start} of {steps}')
        start_up.lap('state')
        with Logbook(workdir, start_step=start, total_steps=steps, batch_size=config.batch_size) as log:
            start_up.lap('log')
            this = _Run(
                config=config,
                dataset=dataset,
                mesh=mesh,
                evaluate=evaluate,
                workdir=workdir,
                start_up=start_up,
                checkpoints=checkpoints,
                log=log,
                stopwatch=Stopwatch(),
            )
            centre = None
            if start < steps:
                state, centre = this.train(state, start=start, steps=steps)
            result = this.result(state, centre)
    write_json(workdir / 'result.json', result)
    return result


def _open_state(
    config: ml_collections.ConfigDict, dataset: Dataset, mesh: Mesh, checkpoints: Checkpoints
) -> tuple[TrainState, int]:
    """The newest checkpoint's state, or a fresh one; and the updates that it has had."""
    variant, optimizer, num_classes = variant_of(config), optimizer_of(config), len(dataset.classes)
    latest = checkpoints.latest_step()
    if latest is not None:
        like = abstract_state(variant, optimizer, mesh, num_classes=num_classes)
        return checkpoints.restore(like, mesh, step=latest), latest
    mean_image = np.asarray(centre_crop(dataset.mean_image))
    state = create_state(variant, optimizer, mesh, num_classes=num_classes, mean_image=mean_image, seed=config.seed)
    return state, 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Run:
    """What training, testing and saving share."""

    config: ml_collections.ConfigDict
    dataset: Dataset
    mesh: Mesh
    evaluate: Evaluate
    workdir: pathlib.Path
    start_up: StartUp
    checkpoints: Checkpoints
    log: Logbook
    stopwatch: Stopwatch

    def train(self, state: TrainState, *, start: int, steps: int) -> tuple[TrainState, Any]:
        """From `start` updates made to `steps`, at least one more; the state, and its centre test."""
        batches = _placed(_batches(self.config, self.dataset).read_from(start), self.mesh)
        batch = next(batches)
        self.start_up.lap('data')
        update = self.start_up.compile(self._train_step().lower(state, batch))
        release_free_memory()  # what compiling took
        reader = MetricsReader(
            self.config, self.log, LossWatch(len(self.dataset.classes)), self.stopwatch, self._started
        )
        profile = Profile(
            self.workdir / 'profile',
            steps=self.config.profile,
            after=start,
            settle=reader.settle,
            say=self.log.say,
        )
        per_epoch = steps_per_epoch(self.config, self.dataset.examples('train'))
        evaluate_every = self.config.evaluate_every or per_epoch
        checkpoint_every = self.config.checkpoint_every or per_epoch
        centre = None  # the latest test, in the end that of the last step
        self.stopwatch.resume()
        with profile:
            for step in range(start + 1, steps + 1):
                # What moves between host and devices here is moved by name: nothing slips in that makes a step wait.
                with jax.transfer_guard('disallow'), profile.step(step):
                    state, metrics = update(state, batch)
                    batch = self._next(batches, metrics)
                    reader.add(step, metrics)
                at_test = step % evaluate_every == 0 or step == steps
                at_save = step % checkpoint_every == 0 or step == steps
                if at_test or at_save:
                    reader.catch_up()  # a state whose loss is not a number must not be saved
                    state, centre = self._test_and_save(state, at_test=at_test, at_save=at_save)
                    self.stopwatch.resume()
        return state, centre

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
        )

    def _started(self) -> None:
        self.start_up.lap('step')
        self.log.say(self.start_up.line())
        write_json(self.workdir / 'startup.json', self.start_up.account())

    def _test_and_save(self, state: TrainState, *, at_test: bool, at_save: bool) -> tuple[TrainState, Any]:
        """The order matters: after the update the test, then the learning-rate rule learns of it, then the checkpoint.

        So that holds all three, and a run resumed from it continues as if it had never stopped.
        """
        centre = error = None
        if at_test:
            centre = self._test(state, 'centre')
            error = centre.top1_error
            plateau = schedule.observe(
                state.plateau, error, patience=self.config.patience, max_drops=self.config.max_drops
            )
            at_save |= float(plateau.best_error) < float(state.plateau.best_error)  # the best is kept
            state = dataclasses.replace(state, plateau=place_like(plateau, state.plateau))
        if at_save:
            self.checkpoints.save(state, top1_error=error)
        return state, centre

    def _test(self, state: TrainState, protocol: str) -> Any:
        began = time.perf_counter()
        result = self.evaluate(
            state.params,
            state.mean_image,
            protocol=protocol,
            progress=self.log.testing(protocol, self.dataset.examples('validation')),
        )
        seconds = time.perf_counter() - began
        check_finite(int(state.step), result.loss, 'validation loss')  # the last update was too much
        self.log.evaluation(int(state.step), protocol, dataclasses.asdict(result), seconds=seconds)
        return result

    def result(self, state: TrainState, centre: Any) -> dict[str, Any]:
        """What `run` returns, for the final state; `centre` is its test where there was one."""
        images, seconds = self.stopwatch.images, self.stopwatch.seconds
        result = {
            'centre': dataclasses.asdict(centre or self._test(state, 'centre')),
            'ten_view': dataclasses.asdict(self._test(state, 'ten_view')),
            'steps': int(state.step),
            'images_per_second': images / seconds if images else None,
            'data_wait': self.stopwatch.data_wait() if images else None,
            'params_sha256': tree_hash(state.params),
        }
        self.log.say(
            f'trained {images // self.config.batch_size} steps in {clock(seconds)} (tests and saves apart), '
            f'{self.stopwatch.data_wait():.1%} of it waiting for data: '
            f'{self.workdir / "result.json"}'
        )
        return result


def place_like(tree: Any, like: Any) -> Any:
    """`tree` on the devices where `like` is."""
    return jax.tree.map(lambda leaf, placed: jax.device_put(leaf, placed.sharding), tree, like)


def _batches(config: ml_collections.ConfigDict, dataset: Dataset) -> TrainingBatches:
    variant = variant_of(config)
    records = dataset.records('train')
    basis = lighting_basis(dataset.rgb_covariance, scale=variant.lighting.scale, strength=variant.lighting.strength)
    return TrainingBatches(
        records,
        config.batch_size,
        config.seed,
        basis,
        window_of(records),
        images_per_crop=variant.images_per_crop,
        lit_steps=lit_steps_of(config, examples=dataset.examples('train')),
    )


def _placed(batches: Iterator[Any], mesh: Mesh) -> Iterator[Batch]:
    """Training batches on the mesh; the transfer of one runs while the step before it computes."""
    for batch in batches:
        yield place_batch(mesh, Batch(batch.images, batch.labels, batch.lighting))
