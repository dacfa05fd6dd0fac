"""Reads step metrics LAG steps late, so that logging never blocks the devices."""

import dataclasses
from collections import deque
from collections.abc import Callable, Mapping
from types import MappingProxyType

import jax
from jax import Array

from alexnet_jax.distributed.phases import PROGRESS
from alexnet_jax.logs.logger import RunLogger
from alexnet_jax.logs.monitors import LossMonitor, NonFiniteError, StepMonitor, check_finite
from alexnet_jax.logs.timing import Stopwatch
from alexnet_jax.training.build import Run

LAG = 2  # steps between a step's dispatch and the reading of its loss, so that reading never holds up the devices


@dataclasses.dataclass
class MetricsReader:
    """Reads each step's metrics once the devices have had time to finish it, and logs means over `log_every` steps."""

    run: Run
    logger: RunLogger
    step_monitor: StepMonitor
    stopwatch: Stopwatch
    on_first: Callable[[], None]  # called when the first step's metrics are there

    def __post_init__(self) -> None:
        self._loss_monitor = LossMonitor(self.run.num_classes)
        self._waiting: deque[tuple[int, dict[str, Array], Mapping[str, Array]]] = deque()
        self._read: list[dict[str, float]] = []
        self._latest = 0  # the step of the last of `_read`

    def add(self, step: int, metrics: dict[str, Array], probed: Mapping[str, Array] = MappingProxyType({})) -> None:
        """Takes the metrics of the update that led to `step`, and what a probe saw of it; reads those LAG steps before.

        Raises:
          NonFiniteError: of one of those losses or gradient norms; what was dispatched after it is forgotten.
        """
        self._waiting.append((step, metrics, probed))
        if len(self._waiting) > LAG:
            self._take()

    def settle(self) -> None:
        """Reads all that is left, and so waits until no step is in flight; raises as `add`."""
        while self._waiting:
            self._take()

    def catch_up(self) -> None:
        """Reads and logs all that is left: a line of the log spans no checkpoint, so a resumed run writes the same."""
        self.settle()
        if self._read:
            self._log_mean()
        self.stopwatch.lap(0)
        self.step_monitor.pause()

    def resume(self) -> None:
        """Begins a step, after a test or a save, whose time does not count."""
        self.stopwatch.resume()
        self.step_monitor.resume()

    def _take(self) -> None:
        step, metrics, probed = self._waiting.popleft()
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        if not self._latest:
            self.on_first()
        try:
            warning = self._loss_monitor.check(step, values['loss'])
            check_finite(step, values.get('gradient_norm', 0.0), 'gradient norm')
        except NonFiniteError:
            self._waiting.clear()  # of steps that changed nothing
            self.catch_up()
            raise
        if warning:
            self.logger.info(warning)
        self.logger.progress(step)
        self.step_monitor.end_step(step)
        self._read.append(values)
        if probed:
            self.logger.log_probe(step, {name: float(value) for name, value in jax.device_get(dict(probed)).items()})
        self.stopwatch.lap(self.run.config.batch_size)
        self._latest = step
        if step % self.run.config.log_every == 0:
            self._log_mean()

    def _log_mean(self) -> None:
        PROGRESS.enter(f'log of step {self._latest}')
        mean = {name: sum(v[name] for v in self._read) / len(self._read) for name in self._read[0]}
        mean['data_wait'] = self.stopwatch.get_data_wait()
        self.logger.log_training(self._latest, mean, images_per_second=self.stopwatch.get_recent_speed())
        self._read.clear()
