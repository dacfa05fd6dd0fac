"""What the rules look at, and what they say."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import ml_collections
import numpy as np

from alexnet_jax.diagnosis.data import DataLook
from alexnet_jax.diagnosis.network import NetworkLook
from alexnet_jax.diagnosis.subject import Subject
from alexnet_jax.model.variants import Relu
from alexnet_jax.training.config import DEMO, learning_rate_of, recipe


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that keeps a network from learning.

    Attributes:
      cause: its name, a few words.
      seen: what was measured, a clause.
      remedy: what to do, a clause that begins with a verb.
    """

    cause: str
    seen: str
    remedy: str


@dataclasses.dataclass(frozen=True)
class Case:
    """All that the rules look at."""

    subject: Subject
    data: DataLook
    network: NetworkLook

    @property
    def chance(self) -> float:
        """The loss of a network that knows nothing, ln(classes), in nats."""
        return math.log(self.subject.classes)

    @property
    def ratio(self) -> float:
        """Update by weight, per step: the median over layers of each layer's median over steps; NaN where none is.

        Of layers that training moves.
        """
        moving = [moves.ratio for layer, moves in self.network.moves.items() if layer not in self.network.held]
        ratios = [ratio for ratio in moving if math.isfinite(ratio)]
        return float(np.median(ratios)) if ratios else math.nan

    @property
    def rate(self) -> float:
        """The learning rate before any drop."""
        return learning_rate_of(self.subject.config)

    @property
    def usual(self) -> ml_collections.ConfigDict:
        """The recipe for this dataset."""
        return recipe(None if self.subject.dataset == DEMO else self.subject.dataset)

    @property
    def left(self) -> float:
        """How much of a channel's mean is not subtracted, the worst of three, in 0..255 units."""
        return float(np.abs(self.data.channel_means - self.network.inputs.subtracted).max())

    @property
    def has_learned(self) -> bool:
        """Whether the log's last validation is right twice as often as the largest class is, or on 20 % more."""
        error, largest = self.last_error, self.data.largest
        return error is not None and 1 - error > min(2 * largest, largest + 0.2)

    @property
    def last_error(self) -> float | None:
        """The top-1 error of the log's last validation, 0..1."""
        errors = [line['top1_error'] for line in self.subject.history if line.get('split') == 'validation']
        return errors[-1] if errors else None

    def compared(self) -> str:
        """The rate beside the recipe's, to be put behind a remedy; '' where they are the same."""
        factor = self.rate / self.usual.learning_rate
        if 0.99 < factor < 1.01:
            return ''
        times = f'{factor:.3g} times' if factor > 1 else f'1/{1 / factor:.3g} of'
        return f': this is {times} the {self.usual.learning_rate:.2g} of the recipe'

    def dead(self, *, after: bool) -> dict[str, float]:
        """{hidden layer: share of its units that gave nothing for any image}; {} where units do not die (tanh)."""
        if not isinstance(self.subject.variant.activation, Relu):
            return {}
        looks = self.network.after if after else self.network.before
        hidden = list(looks)[:-1]
        return {layer: float((looks[layer].highest <= 0).mean()) for layer in hidden}


Rule = Callable[[Case], Finding | None]
