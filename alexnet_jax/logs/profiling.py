"""Traces some training steps, for TensorBoard (with the xprof plugin) or Perfetto."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable, Iterator

import jax

from alexnet_jax.distributed.phases import PROGRESS

WARM_UP = 2  # steps of this process before the trace: the first ones still fill memory and caches


class Profile:
    """Traces the steps after the first WARM_UP of a process; a context manager, which ends the trace in any case.

    The speed that the log gives of a traced run includes tracing it and writing the trace.
    """

    def __init__(
        self, folder: pathlib.Path, *, steps: int, after: int, settle: Callable[[], None], info: Callable[[str], None]
    ) -> None:
        """Prepares to trace `steps` steps (0: none) into `folder`, in a process whose first step is `after` + 1.

        `settle` waits for the steps in flight, so that the trace holds whole steps; `info` prints one line.
        """
        self._folder, self._settle, self._info = folder, settle, info
        self._steps = range(after + WARM_UP + 1, after + WARM_UP + 1 + steps)
        self._traced = 0
        self._running = False

    def __enter__(self) -> Profile:
        return self

    def __exit__(self, failed: type[BaseException] | None, *exception: object) -> None:
        if self._running:
            self._stop()
        elif self._steps and not self._traced and not failed:
            self._info(f'nothing was traced: profiling begins at step {self._steps[0]}, after the end of this run')

    @contextlib.contextmanager
    def step(self, step: int) -> Iterator[None]:
        """Surrounds the dispatch of the update that leads to `step`."""
        if step not in self._steps:
            yield
            return
        if step == self._steps[0]:
            self._settle()
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0  # else every Python call of the readers of the data is in it
            jax.profiler.start_trace(self._folder, profiler_options=options)
            self._running = True
        with jax.profiler.StepTraceAnnotation('train', step_num=step):
            yield
        self._traced += 1
        if step == self._steps[-1]:
            self._settle()
            self._stop()

    def _stop(self) -> None:
        PROGRESS.enter('trace')
        jax.profiler.stop_trace()
        self._running = False
        self._info(
            f'traced {self._traced} steps into {self._folder}: open it with `tensorboard --logdir {self._folder}` '
            f'(pip install tensorboard xprof), or its trace.json.gz on ui.perfetto.dev'
        )
