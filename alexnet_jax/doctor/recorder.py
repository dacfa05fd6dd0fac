"""Records what the network computes in the real training step: every layer's values, and which units are dropped.

The model is the training step's own, with its operations (model.alexnet.AlexNet.operations) and its exchange replaced
by ones that compute the same and copy values to the host. The values are those that training computes, mistakes
included: nothing is computed a second time in another way.
"""

import dataclasses
from collections import defaultdict
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from alexnet_jax.model.ops import SATURATED, relative_slope
from alexnet_jax.model.spec import Activation, Sigmoid, Tanh, Variant

DROPPED, KEPT, UNKNOWN = -1, 1, 0  # of a hidden unit; UNKNOWN where it was 0 before dropout


@dataclasses.dataclass(frozen=True)
class LayerStats:
    """Statistics of a layer's products with the bias added, before ReLU, over all devices together.

    `variation` is the share of the layer that depends on the image: the standard deviation over the images of the
    batch, root mean square over units and places, as a fraction of the root mean square of all values. 0: equal for all
    images. `saturated` is the share of what its activation gives at a slope below SATURATED of the largest.
    """

    mean: float
    spread: float  # standard deviation
    variation: float
    highest: np.ndarray  # float32 (units,), the largest value of each unit or map, over images and places
    saturated: float | None = None  # of tanh and sigmoid


class Recorder:
    """Records the values of one model: the model that `attach` returns is applied in its place.

    A recorder is the `operations` of that model. The operations that it does not define are those of the original.
    """

    def __init__(self, variant: Variant) -> None:
        self._features = {layer.name: layer.features for layer in variant.layers}
        self._names = tuple(self._features)
        self._after_hidden = tuple(layer.name for layer in variant.dense[1:])
        self._drops_outputs = variant.drops == 'outputs'  # so that the layers after them read units behind dropout
        self._layer = 0  # index of the layer that is being traced
        self._units: Array | None = None  # output of the last activation
        self._recorded: dict[str, list[Any]] = defaultdict(list)
        self._operations: Any = None
        self._exchange: Any = None

    def attach(self, model: Any) -> Any:
        """Returns `model` with recorded operations and exchange; its numbers and parameters stay the same."""
        self._operations, self._exchange = model.operations, model.exchange
        return model.clone(operations=self, exchange=self._record_exchange)

    def flush(self) -> dict[str, list[Any]]:
        """Waits for all programs; returns and forgets the recorded values, {'input', LAYER, 'masks LAYER': [...]}."""
        jax.effects_barrier()
        recorded, self._recorded = dict(self._recorded), defaultdict(list)
        return recorded

    def compute_stats(self, recorded: dict[str, list[Any]]) -> dict[str, LayerStats]:
        """Computes {layer: LayerStats} of what `flush` returned after one or several forward passes."""
        stats = {}
        for name in filter(recorded.__contains__, self._names):
            mean, square, between = (float(np.mean([values[i] for values in recorded[name]])) for i in range(3))
            variation = (between / square) ** 0.5 if square else 0.0
            highest = np.max([values[3] for values in recorded[name]], axis=0)
            shares = [float(values[0]) for values in recorded.get(f'saturated {name}', ())]
            saturated = float(np.mean(shares)) if shares else None
            stats[name] = LayerStats(mean, max(0.0, square - mean**2) ** 0.5, variation, highest, saturated)
        return stats

    # The methods below are called while the model is traced.

    def __getattr__(self, name: str) -> Any:
        return getattr(self._operations, name)

    def convolution(self, x: Array, *arguments: Any, **options: Any) -> Array:
        """Records what conv1 reads."""
        if self._layer == 0:
            y = lax.stop_gradient(x).astype(jnp.float32)
            self._record('input', y.mean((0, 1, 2)), jnp.square(y).mean((0, 1, 2)), y.min(), y.max())
        return self._operations.convolution(x, *arguments, **options)

    def add_bias(self, x: Array, bias: Array) -> Array:
        """Records a layer's output before its activation."""
        output = self._operations.add_bias(x, bias)
        name = self._names[self._layer]
        self._layer = (self._layer + 1) % len(self._names)
        y = lax.stop_gradient(output).astype(jnp.float32)
        highest = y.max(tuple(range(y.ndim - 1)))[None]
        if highest.shape[1] < self._features[name]:  # the other units are on other devices
            highest = self._exchange(highest, self._after_hidden[0])
        self._record(name, y.mean(), jnp.square(y).mean(), y.var(0).mean(), highest[0])
        return output

    def relu(self, x: Array) -> Array:
        """Keeps the output for `_record_exchange`."""
        return self._keep_units(self._operations.relu(x))

    def tanh(self, x: Array) -> Array:
        """Keeps the output for `_record_exchange`; records how much of it is saturated."""
        return self._keep_units(self._record_slopes(Tanh(), self._operations.tanh(x)))

    def sigmoid(self, x: Array) -> Array:
        """Keeps the output for `_record_exchange`; records how much of it is saturated."""
        return self._keep_units(self._record_slopes(Sigmoid(), self._operations.sigmoid(x)))

    def _record_slopes(self, activation: Activation, y: Array) -> Array:
        slopes = relative_slope(activation, lax.stop_gradient(y))
        self._record(f'saturated {self._names[self._layer - 1]}', (slopes < SATURATED).mean(dtype=jnp.float32))
        return y

    def _keep_units(self, y: Array) -> Array:
        """Keeps an activation's output: of a hidden layer, its units before dropout."""
        self._units = lax.stop_gradient(y)
        return y

    def _record_exchange(self, x: Array, layer: str) -> Array:
        """Records, where `layer` reads both towers behind fc6 or fc7, whether each unit was kept or dropped."""
        if self._drops_outputs and layer in self._after_hidden and self._units is not None:
            kept = jnp.where(lax.stop_gradient(x) == 0, DROPPED, KEPT)
            mask = jnp.where(self._units == 0, UNKNOWN, kept).astype(x.dtype)
            units = self._exchange(mask, self._after_hidden[0])  # before fc8 one weird trick exchanges none
            self._record(f'masks {layer}', units.astype(jnp.int8))
        return self._exchange(x, layer)

    def _record(self, name: str, *values: Array) -> None:
        def append(*arrays: Any) -> None:
            self._recorded[name].append(tuple(map(np.asarray, arrays)))

        jax.debug.callback(append, *values)
