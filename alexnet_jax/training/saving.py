"""Checkpoints of a run, and what its config says where one cannot be written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_collections

from alexnet_jax.training.checkpoint import Checkpoints, NotSaved
from alexnet_jax.training.state import TrainState


class Saving:
    """Saves and waits; what a disk does not take ends the run, or is said and left."""

    def __init__(self, config: ml_collections.ConfigDict, checkpoints: Checkpoints, say: Callable[[str], None]) -> None:
        """`say` prints a line."""
        self._patient, self._say = config.on_failed_save == 'continue', say
        self.checkpoints = checkpoints

    def save(self, state: TrainState, **seal: Any) -> None:
        """Begins to write `state`; see `Checkpoints.save`."""
        self.wait()  # for the one before, whose failure shows here
        self._attempt(lambda: self.checkpoints.save(state, **seal))

    def wait(self) -> None:
        """Until what is being written is there; see `Checkpoints.wait`."""
        self._attempt(self.checkpoints.wait)

    def _attempt(self, save: Callable[[], None]) -> None:
        try:
            save()
        except NotSaved as error:
            if not self._patient:
                raise
            safe = max(self.checkpoints.steps(), default=0)
            self._say(f'WARNING: {error}. Training goes on, and what is safe is step {safe}')
