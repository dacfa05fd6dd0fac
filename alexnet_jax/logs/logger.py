"""What a run writes while it goes: the terminal, metrics.jsonl and TensorBoard files."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from alexnet_jax.console import format_duration
from alexnet_jax.logs.writers import MetricWriter, get_group

MIN_DATA_WAIT = 0.01  # of the training time: where the devices waited longer for data, lines say so


class RunLogger:
    """Logs to one run folder; a context manager.

    On a terminal a progress line is redrawn in place, elsewhere plain lines are printed. Both go to standard error:
    standard output is left to results. Lines of metrics.jsonl later than `start_step` are dropped at the start: a run
    that was killed wrote them, and the resumed run writes them again. Of several processes only the first says and
    writes anything.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        *,
        start_step: int,
        total_steps: int,
        batch_size: int,
        silent: bool = False,
        patient: bool = False,
        track: Callable[[int, str, dict[str, Any]], None] | None = None,
    ) -> None:
        """`silent`: of a process that leaves the log to another; `patient`: goes on where the disk is full.

        `track` is called as track(step, group, values) with all that is written.
        """
        self._total, self._batch_size = total_steps, batch_size
        self._workdir, self._silent, self._patient = workdir, silent, patient
        self._console = Console(stderr=True, highlight=False, soft_wrap=True, quiet=silent)
        self._records, self._track = self._open(start_step), track
        self._progress = None
        if self._console.is_terminal and not silent:
            self._progress = Progress(
                TextColumn('{task.description}'), BarColumn(), TextColumn('{task.fields[figures]}'),
                console=self._console, transient=True,
            )  # fmt: skip
            self._task = self._progress.add_task('training', total=total_steps, completed=start_step, figures='')

    def __enter__(self) -> RunLogger:
        if self._progress:
            self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._progress:
            self._progress.stop()
        if self._records:
            self._records.close()

    def rewind(self, step: int) -> None:
        """Forgets what was logged of later steps than `step`: the run makes them again."""
        if self._records:
            self._records.close()
        self._records = self._open(step)

    def _open(self, step: int) -> MetricWriter | None:
        if self._silent:
            return None
        return MetricWriter(self._workdir, until=step, patient=self._patient, info=self.info)

    def info(self, text: str) -> None:
        """Prints one line, above the progress bar where there is one."""
        self._console.print(text, markup=False)

    def progress(self, step: int) -> None:
        """Moves the progress bar, where there is one, to `step` updates made."""
        if self._progress:
            self._progress.update(self._task, completed=step, description='training')

    def testing(self, protocol: str, examples: int) -> Callable[[int], None]:
        """What a test calls with the number of images it has done, for the person who waits."""

        def show(done: int) -> None:
            if self._progress:
                text = f'testing, {protocol.replace("_", "-")}: {done}/{examples}'
                self._progress.update(self._task, description=text)

        return show

    def train(self, step: int, metrics: dict[str, float], *, images_per_second: float) -> None:
        """Training metrics, means over the steps since the last call, at `step` updates made."""
        left = (self._total - step) * self._batch_size / images_per_second
        figures = (
            f'step {step}/{self._total}  loss {metrics["loss"]:.3f}  error {metrics["top1_error"]:.1%}  '
            f'rate {metrics["learning_rate"]:.1e}  {images_per_second:.1f} images/s  {format_duration(left)} left'
        )
        if metrics['data_wait'] >= MIN_DATA_WAIT:
            figures += f'  {metrics["data_wait"]:.0%} of the time waiting for data'
        if self._progress:
            self._progress.update(self._task, figures=figures)
        else:
            self.info(figures)
        self._write(step, 'train', metrics | {'images_per_second': images_per_second})

    def evaluation(self, step: int, protocol: str, result: dict[str, float], *, seconds: float) -> None:
        """A test of the parameters after `step` updates."""
        self.info(
            f'step {step}/{self._total}  validation, {protocol.replace("_", "-")}: loss {result["loss"]:.3f}  '
            f'top-1 error {result["top1_error"]:.2%}  top-5 error {result["top5_error"]:.2%}  '
            f'({result["examples"]} images, {seconds:.0f} s)'
        )
        self._write(step, 'validation', {'protocol': protocol, **result})

    def _write(self, step: int, split: str, values: dict[str, Any]) -> None:
        if self._records:
            self._records.write(step, split, values)
        if self._track:
            self._track(step, get_group(split, values), values)
