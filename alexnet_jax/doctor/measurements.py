"""All that is measured of a run or a dataset, and what follows from it for the rules and the screen."""

import dataclasses
import math

import numpy as np

from alexnet_jax.doctor.data_stats import DataStats
from alexnet_jax.doctor.network_stats import NetworkStats
from alexnet_jax.doctor.snapshot import Snapshot
from alexnet_jax.model.spec import Relu
from alexnet_jax.training.config import DEMO, Config, make_config
from alexnet_jax.training.validation import validate_config


@dataclasses.dataclass(frozen=True)
class Measurements:
    """All that the rules judge."""

    snapshot: Snapshot
    data: DataStats
    network: NetworkStats

    @property
    def chance_loss(self) -> float:
        """The loss of a network that knows nothing, ln(classes), in nats."""
        return math.log(self.snapshot.run.num_classes)

    @property
    def update_ratio(self) -> float:
        """Median over unfrozen layers of update by weight, itself a median over steps; NaN where none is finite."""
        network = self.network
        ratios = [stats.ratio for layer, stats in network.updates.items() if layer not in network.frozen_layers]
        return float(np.median([*filter(math.isfinite, ratios)] or [math.nan]))

    @property
    def learning_rate(self) -> float:
        """The learning rate before any drop."""
        return self.snapshot.run.config.initial_learning_rate

    @property
    def recipe(self) -> Config:
        """The recipe for this dataset."""
        dataset = self.snapshot.run.config.dataset
        return validate_config(make_config(None if dataset == DEMO else dataset))

    @property
    def has_local_rates(self) -> bool:
        """Whether the update rule is LARS, whose rate is a thousand times the recipe's and no share of a weight."""
        return self.snapshot.run.config.trust_coefficient is not None

    @property
    def residual_mean(self) -> float:
        """How much of a channel's mean is not subtracted, the worst of three, in 0..255 units."""
        return float(np.abs(self.data.channel_means - self.network.inputs.subtracted).max())

    @property
    def has_learned(self) -> bool:
        """Whether the log's last validation is right twice as often as the largest class is, or on 20 % more."""
        error, largest = self.validation_error, self.data.largest
        return error is not None and 1 - error > min(2 * largest, largest + 0.2)

    @property
    def validation_error(self) -> float | None:
        """The top-1 error of the log's last validation, 0..1."""
        errors = [line['top1_error'] for line in self.snapshot.history if line.get('split') == 'validation']
        return errors[-1] if errors else None

    def compare_learning_rate(self) -> str:
        """Formats the rate beside the recipe's, put behind a remedy; '' where they are the same or of two rules."""
        factor = self.learning_rate / self.recipe.learning_rate
        if 0.99 < factor < 1.01 or self.has_local_rates:
            return ''
        times = f'{factor:.3g} times' if factor > 1 else f'1/{1 / factor:.3g} of'
        return f': this is {times} the {self.recipe.learning_rate:.2g} of the recipe'

    def get_dead_shares(self, *, after: bool) -> dict[str, float]:
        """Returns {hidden layer: share of its units that are 0 for all images}; {} where units do not die (tanh)."""
        if not isinstance(self.snapshot.run.variant.activation, Relu):
            return {}
        stats = self.network.after if after else self.network.before
        return {layer: float((stats[layer].highest <= 0).mean()) for layer in list(stats)[:-1]}

    def get_saturated_shares(self, *, after: bool) -> dict[str, float]:
        """Returns {layer: share of what its units give at a slope below SATURATED}; {} where none saturate (ReLU)."""
        stats = self.network.after if after else self.network.before
        return {layer: own.saturated for layer, own in stats.items() if own.saturated is not None}
