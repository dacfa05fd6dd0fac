"""The run: batches in, updates, now and then a test and a checkpoint, at the end the result."""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax
import ml_collections
import numpy as np
from jax import Array
from jax.sharding import Mesh

from alexnet_jax.data.augment import centre_crop, lighting_basis
from alexnet_jax.data.pipeline import TrainingBatches
from alexnet_jax.data.source import Dataset
from alexnet_jax.model.variants import Variant
from alexnet_jax.parallel.mesh import place_batch
from alexnet_jax.training import schedule
from alexnet_jax.training.checkpoint import Checkpoints, tree_hash
from alexnet_jax.training.config import steps_per_epoch, total_steps
from alexnet_jax.training.logbook import Logbook, Stopwatch, clock, to_stderr
from alexnet_jax.training.recipe import optimizer_of, schedule_of, variant_of
from alexnet_jax.training.state import create_state
from alexnet_jax.training.step import Batch, make_train_step
from alexnet_jax.training.watch import LossWatch, check_finite
from alexnet_jax.training.workdir import write_json

BEHIND = 2  # steps between a step's dispatch and the reading of its loss, so that reading never holds up the devices


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
) -> dict[str, Any]:
    """Trains to the end, from the newest checkpoint in `workdir` where there is one.

    The order within a step matters: update, then test, then the learning-rate rule learns of the test, then the
    checkpoint, which so holds all three; a run resumed from it continues as if it had never stopped.

    Returns:
      What is written to WORKDIR/result.json: both protocols, 'steps', 'images_per_second' (training only; None if
      nothing was left to train) and 'params_sha256'.

    Raises:
      InputError: a damaged checkpoint, or a loss that is not a number.
    """
    variant, examples = variant_of(config), dataset.examples('train')
    optimizer, num_classes = optimizer_of(config), len(dataset.classes)
    state = create_state(
        variant,
        optimizer,
        mesh,
        num_classes=num_classes,
        mean_image=np.asarray(centre_crop(dataset.mean_image)),
        seed=config.seed,
    )
    steps, per_epoch = total_steps(config, examples), steps_per_epoch(config, examples)
    evaluate_every = config.evaluate_every or per_epoch
    checkpoint_every = config.checkpoint_every or per_epoch
    with Checkpoints(workdir, keep=config.keep_checkpoints) as checkpoints:
        latest = checkpoints.latest_step()
        if latest is not None:
            state = checkpoints.restore(state, mesh, step=latest)
            to_stderr(f'resuming from step {latest} of {steps}')
        start = latest or 0
        log = Logbook(workdir, start_step=start, total_steps=steps, batch_size=config.batch_size)
        stopwatch = Stopwatch()
        with log:

            def test(protocol: str) -> Any:
                began = time.perf_counter()
                result = evaluate(
                    state.params,
                    state.mean_image,
                    protocol=protocol,
                    progress=log.testing(protocol, dataset.examples('validation')),
                )
                seconds = time.perf_counter() - began
                check_finite(int(state.step), result.loss, 'validation loss')  # the last update was too much
                log.evaluation(int(state.step), protocol, dataclasses.asdict(result), seconds=seconds)
                return result

            if start < steps:
                train_step = make_train_step(
                    variant,
                    optimizer,
                    schedule_of(config, examples=examples),
                    mesh,
                    num_classes=num_classes,
                    seed=config.seed,
                )
                batches = _placed(_batches(config, dataset, variant).read_from(start), mesh)
                batch = next(batches)
                began = time.perf_counter()
                compiled = train_step.lower(state, batch).compile()
                log.say(f'compiled the training step in {time.perf_counter() - began:.1f} s')
                reader = _MetricsReader(config, log, LossWatch(num_classes), stopwatch)
                stopwatch.resume()
            centre = None  # the latest test, in the end that of the last step
            for step in range(start + 1, steps + 1):
                state, metrics = compiled(state, batch)
                batch = next(batches)
                reader.add(step, metrics)
                at_test = step % evaluate_every == 0 or step == steps
                at_save = step % checkpoint_every == 0 or step == steps
                if not (at_test or at_save):
                    continue
                reader.catch_up()  # a state whose loss is not a number must not be saved
                error = None
                if at_test:
                    centre = test('centre')
                    error = centre.top1_error
                    plateau = schedule.observe(
                        state.plateau, error, patience=config.patience, max_drops=config.max_drops
                    )
                    at_save |= float(plateau.best_error) < float(state.plateau.best_error)  # the best is kept
                    state = dataclasses.replace(state, plateau=place_like(plateau, state.plateau))
                if at_save:
                    checkpoints.save(state, top1_error=error)
                stopwatch.resume()
            result = {
                'centre': dataclasses.asdict(centre or test('centre')),
                'ten_view': dataclasses.asdict(test('ten_view')),
                'steps': int(state.step),
                'images_per_second': stopwatch.images / stopwatch.seconds if stopwatch.images else None,
                'params_sha256': tree_hash(state.params),
            }
            log.say(
                f'trained {stopwatch.images // config.batch_size} steps in {clock(stopwatch.seconds)} (tests and saves '
                f'apart): {workdir / "result.json"}'
            )
    write_json(workdir / 'result.json', result)
    return result


def place_like(tree: Any, like: Any) -> Any:
    """`tree` on the devices where `like` is."""
    return jax.tree.map(lambda leaf, placed: jax.device_put(leaf, placed.sharding), tree, like)


def _batches(config: ml_collections.ConfigDict, dataset: Dataset, variant: Variant) -> TrainingBatches:
    lighting = variant.lighting
    basis = lighting_basis(dataset.rgb_covariance, scale=lighting.scale, strength=lighting.strength)
    return TrainingBatches(dataset.records('train'), config.batch_size, config.seed, basis)


def _placed(batches: Iterator[Any], mesh: Mesh) -> Iterator[Batch]:
    """Training batches on the mesh; the transfer of one runs while the step before it computes."""
    for batch in batches:
        yield place_batch(mesh, Batch(batch.images, batch.labels, batch.lighting))


class _MetricsReader:
    """Reads each step's metrics once the devices have had time to finish it, and logs means over `log_every` steps."""

    def __init__(self, config: ml_collections.ConfigDict, log: Logbook, watch: LossWatch, stopwatch: Stopwatch) -> None:
        self._config, self._log, self._watch, self._stopwatch = config, log, watch, stopwatch
        self._waiting: deque[tuple[int, dict[str, Array]]] = deque()
        self._read: list[dict[str, float]] = []
        self._latest = 0  # the step of the last of `_read`

    def add(self, step: int, metrics: dict[str, Array]) -> None:
        """Takes the metrics of the update that led to `step`, and reads those of BEHIND steps before."""
        self._waiting.append((step, metrics))
        if len(self._waiting) > BEHIND:
            self._take()

    def catch_up(self) -> None:
        """Reads and logs all that is left: a line of the log spans no checkpoint, so a resumed run writes the same."""
        while self._waiting:
            self._take()
        if self._read:
            self._log_mean()
        self._stopwatch.lap(0)

    def _take(self) -> None:
        step, metrics = self._waiting.popleft()
        values = {name: float(value) for name, value in metrics.items()}
        warning = self._watch.look(step, values['loss'])
        if warning:
            self._log.say(warning)
        self._log.tick(step)
        self._read.append(values)
        self._stopwatch.lap(self._config.batch_size)
        self._latest = step
        if step % self._config.log_every == 0:
            self._log_mean()

    def _log_mean(self) -> None:
        mean = {name: sum(v[name] for v in self._read) / len(self._read) for name in self._read[0]}
        self._log.train(self._latest, mean, images_per_second=self._stopwatch.recent())
        self._read.clear()
