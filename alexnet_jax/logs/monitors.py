"""Watches a run for a loss that is not finite, a loss that does not fall and a step that does not end."""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable

from alexnet_jax.errors import InputError

WINDOW = 200  # steps that the loss must stay flat before the warning
NEAR = 0.02  # how near to ln(classes) counts as flat, relative
SLOW = 20  # a step is stuck when it takes this many times the median
KNOWN = 5  # steps before the median means something


class NonFiniteError(InputError):
    """A number, `name`, is NaN or infinite: `value`, which the batch of `step` gave."""

    def __init__(self, step: int, name: str, value: float) -> None:
        super().__init__(f'the {name} is {value} at step {step}')
        self.step, self.name, self.value = step, name, value


def check_finite(step: int, value: float, name: str) -> None:
    """Raises `NonFiniteError`, which names the step, if `value` is NaN or infinite; `name` says which number it is."""
    if not math.isfinite(value):
        raise NonFiniteError(step, name, value)


class LossMonitor:
    """Checks the loss of every step."""

    def __init__(self, num_classes: int) -> None:
        self._flat = math.log(num_classes)
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._warned = False

    def check(self, step: int, loss: float) -> str | None:
        """Returns a warning, once, if the loss has stayed near ln(classes); None otherwise.

        Raises:
          NonFiniteError: of a loss that is NaN or infinite.
        """
        check_finite(step, loss, 'loss')
        self._losses.append(loss)
        mean = sum(self._losses) / len(self._losses)
        flat = len(self._losses) == WINDOW and mean > self._flat * (1 - NEAR)
        if self._warned or not flat:
            return None
        self._warned = True
        return (
            f'warning: after {step} steps the loss is still {mean:.3f}, about ln(classes) = {self._flat:.3f}: nothing '
            f'is being learned yet. Likely causes: a learning rate too low to leave the start or so high that every '
            f'ReLU died (look at --config.learning_rate); biases of 1 with weights of std 0.01, which is slow to start '
            f'(the released variant starts its deep layers at 0.03: --config.variant=released); labels that do not '
            f'belong to their images; too few steps so far.'
        )


class StepMonitor:
    """Warns while a step takes SLOW times the median, and says when it has ended; a context manager."""

    def __init__(self, info: Callable[[str], None], *, least: float = 10.0) -> None:
        """`info` prints a line; no step of less than `least` seconds is stuck: of fast steps, twenty are no time."""
        self._info, self._least = info, least
        self._seconds: deque[float] = deque(maxlen=50)
        self._since: float | None = None  # when the last step ended; None while nobody trains
        self._step, self._warned = 0, False
        self._ended = threading.Event()

    def __enter__(self) -> StepMonitor:
        threading.Thread(target=self._watch, daemon=True, name='step-watch').start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()

    def end_step(self, step: int) -> None:
        """Notes that `step` has ended, and the next has begun."""
        now = time.monotonic()
        if self._since is not None:
            seconds = now - self._since
            self._seconds.append(seconds)
            if self._warned:
                self._info(f'step {step} ended after {seconds:.0f} s')
        self._since, self._step, self._warned = now, step, False

    def resume(self) -> None:
        """Begins a step."""
        self._since = time.monotonic()

    def pause(self) -> None:
        """Notes that what follows is no step."""
        self._since = None

    def _watch(self) -> None:
        while not self._ended.wait(0.25):
            since = self._since
            if since is None or self._warned or len(self._seconds) < KNOWN:
                continue
            median, seconds = statistics.median(list(self._seconds)), time.monotonic() - since
            if seconds > max(SLOW * median, self._least):
                self._warned = True
                self._info(
                    f'warning: step {self._step + 1} has taken {seconds:.0f} s, the median is {median:.2f} s: is this '
                    f'machine or its disk busy with something else, or a device stuck?'
                )
