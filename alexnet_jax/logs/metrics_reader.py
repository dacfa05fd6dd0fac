"""Reads step metrics LAG steps late, so that logging never blocks the devices."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import jax
from jax import Array

from alexnet_jax.logs.logger import RunLogger
from alexnet_jax.logs.monitors import LossMonitor, StepMonitor, check_finite
from alexnet_jax.logs.timing import Stopwatch
from alexnet_jax.training.config import Config

LAG = 2  # steps between a step's dispatch and the reading of its loss, so that reading never holds up the devices


class MetricsReader:
    """Reads each step's metrics once the devices have had time to finish it, and logs means over `log_every` steps."""

    def __init__(
        self,
        config: Config,
        log: RunLogger,
        watch: LossMonitor,
        steps: StepMonitor,
        stopwatch: Stopwatch,
        on_first: Callable[[], None],
    ) -> None:
        """`on_first` is called when the first step's metrics are there."""
        self._config, self._log, self._watch, self._steps, self._stopwatch = config, log, watch, steps, stopwatch
        self._on_first = on_first
        self._waiting: deque[tuple[int, dict[str, Array]]] = deque()
        self._read: list[dict[str, float]] = []
        self._latest = 0  # the step of the last of `_read`

    def add(self, step: int, metrics: dict[str, Array]) -> None:
        """Takes the metrics of the update that led to `step`, and reads those of LAG steps before.

        Raises:
          Diverged: one of those losses or gradient norms is no number; what was sent off after it is forgotten.
        """
        self._waiting.append((step, metrics))
        if len(self._waiting) > LAG:
            self._take()

    def catch_up(self) -> None:
        """Reads and logs all that is left: a line of the log spans no checkpoint, so a resumed run writes the same."""
        self.settle()
        if self._read:
            self._log_mean()
        self._stopwatch.lap(0)
        self._steps.pause()

    def resume(self) -> None:
        """After a test or a save, which do not count: a step begins."""
        self._stopwatch.resume()
        self._steps.resume()

    def settle(self) -> None:
        """Reads all that is left, and so waits until no step is in flight."""
        while self._waiting:
            self._take()

    def _take(self) -> None:
        step, metrics = self._waiting.popleft()
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        if not self._latest:
            self._on_first()
        try:
            warning = self._watch.look(step, values['loss'])
            check_finite(step, values.get('gradient_norm', 0.0), 'gradient norm')
        except Exception:
            self._waiting.clear()  # of steps that changed nothing
            self.catch_up()
            raise
        if warning:
            self._log.info(warning)
        self._log.progress(step)
        self._steps.ended(step)
        self._read.append(values)
        self._stopwatch.lap(self._config.batch_size)
        self._latest = step
        if step % self._config.log_every == 0:
            self._log_mean()

    def _log_mean(self) -> None:
        mean = {name: sum(v[name] for v in self._read) / len(self._read) for name in self._read[0]}
        mean['data_wait'] = self._stopwatch.data_wait()
        self._log.train(self._latest, mean, images_per_second=self._stopwatch.recent())
        self._read.clear()
