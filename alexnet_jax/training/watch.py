"""Watches the loss: stops on NaN, and says what is likely wrong when nothing is learned."""

from __future__ import annotations

import math
from collections import deque

from alexnet_jax import InputError

WINDOW = 200  # steps that the loss must stay flat before the warning
NEAR = 0.02  # how near to ln(classes) counts as flat, relative


class Diverged(InputError):
    """The loss is not a number any more."""


def check_finite(step: int, loss: float, name: str) -> None:
    """Raises `Diverged`, which names the step, if `loss` is NaN or infinite; `name` says which loss it is."""
    if not math.isfinite(loss):
        raise Diverged(
            f'the {name} is {loss} at step {step}: stopped, with the checkpoints before it kept; '
            f'try a lower --config.learning_rate, in a new --workdir'
        )


class LossWatch:
    """Looks at the loss of every step."""

    def __init__(self, num_classes: int) -> None:
        self._flat = math.log(num_classes)
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._warned = False

    def look(self, step: int, loss: float) -> str | None:
        """A warning, once, if the loss has stayed near ln(classes); None otherwise.

        Raises:
          Diverged: the loss is NaN or infinite; the message names the step.
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
