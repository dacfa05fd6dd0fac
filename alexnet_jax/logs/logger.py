"""Logs a run to the terminal, metrics.jsonl, TensorBoard and its tracker."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from alexnet_jax.console import format_duration
from alexnet_jax.logs.writers import MetricWriter, get_group
from alexnet_jax.training.build import Run

MIN_DATA_WAIT = 0.01  # of the training time: where the devices waited longer for data, lines say so


class RunLogger:
    """Logs to one run folder; a context manager.

    On a terminal a progress line is redrawn in place, elsewhere plain lines are printed. Both go to standard error:
    standard output is left to results. Lines of metrics.jsonl later than `start` are dropped at the start: a run
    that was killed wrote them, and the resumed run writes them again.
    """

    def __init__(
        self,
        run: Run,
        workdir: pathlib.Path,
        *,
        start: int,
        silent: bool = False,
        track: Callable[[int, str, dict[str, Any]], None] | None = None,
    ) -> None:
        """Opens the log of `run`, which has made `start` steps; `silent`: of a process that leaves it to another.

        `track` is called as track(step, group, values) with all that is written.
        """
        self._run, self._workdir, self._silent, self._track = run, workdir, silent, track
        self._console = Console(stderr=True, highlight=False, soft_wrap=True, quiet=silent)
        self._plain = silent or not self._console.is_terminal
        columns = TextColumn('{task.description}'), BarColumn(), TextColumn('{task.fields[figures]}')
        self._bar = Progress(*columns, console=self._console, transient=True, disable=self._plain)
        self._task = self._bar.add_task('training', total=run.steps, completed=start, figures='')
        self._writer: MetricWriter | None = None
        self.rewind(start)

    def __enter__(self) -> RunLogger:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if not self._plain:  # without a terminal, `stop` prints an empty line
            self._bar.stop()
        if self._writer:
            self._writer.close()

    def rewind(self, step: int) -> None:
        """Drops what was logged of later steps than `step`: the run makes them again."""
        if self._writer:
            self._writer.close()
        if not self._silent:
            patient = self._run.config.on_failed_save == 'continue'
            self._writer = MetricWriter(self._workdir, until=step, patient=patient, info=self.info)

    def info(self, text: str) -> None:
        """Prints one line, above the progress bar where there is one."""
        self._console.print(text, markup=False)

    def progress(self, step: int) -> None:
        """Moves the progress bar, where there is one, to `step` updates made."""
        self._bar.update(self._task, completed=step, description='training')

    def test_progress(self, protocol: str, done: int, examples: int) -> None:
        """Shows on the progress bar, where there is one, that a test has done so many of its images."""
        self._bar.update(self._task, description=f'testing, {protocol.replace("_", "-")}: {done}/{examples}')

    def log_training(self, step: int, metrics: dict[str, float], *, images_per_second: float) -> None:
        """Logs training metrics, means over the steps since the last call, at `step` updates made."""
        left = (self._run.steps - step) * self._run.config.batch_size / images_per_second
        figures = (
            f'step {step}/{self._run.steps}  loss {metrics["loss"]:.3f}  error {metrics["top1_error"]:.1%}  '
            f'rate {metrics["learning_rate"]:.1e}  {images_per_second:.1f} images/s  {format_duration(left)} left'
        )
        if metrics['data_wait'] >= MIN_DATA_WAIT:
            figures += f'  {metrics["data_wait"]:.0%} of the time waiting for data'
        self._bar.update(self._task, figures=figures)
        if self._plain:
            self.info(figures)
        self._write(step, 'train', metrics | {'images_per_second': images_per_second})

    def log_test(
        self, step: int, protocol: str, result: dict[str, float], *, seconds: float, split: str = 'validation'
    ) -> None:
        """Logs a test of the parameters after `step` updates, of `split` 'validation' or 'training_images'."""
        gap = f'  gap {100 * result["top1_gap"]:.2f} points' if 'top1_gap' in result else ''
        self.info(
            f'step {step}/{self._run.steps}  {split.replace("_", " ")}, {protocol.replace("_", "-")}: '
            f'loss {result["loss"]:.3f}  top-1 error {result["top1_error"]:.2%}  '
            f'top-5 error {result["top5_error"]:.2%}{gap}  ({result["examples"]} images, {seconds:.0f} s)'
        )
        self._write(step, split, {'protocol': protocol, **result})

    def log_probe(self, step: int, values: dict[str, float]) -> None:
        """Logs what a probe saw of the update that led to `step`; a number that is not finite as null."""
        self._write(step, 'probe', {name: value if math.isfinite(value) else None for name, value in values.items()})

    def _write(self, step: int, split: str, values: dict[str, Any]) -> None:
        if self._writer:
            self._writer.write(step, split, values)
        if self._track:
            self._track(step, get_group(split, values), values)
