"""Looks into the network while the real training step computes it: what every layer gives, and who was dropped.

The model is the training step's own, with two of its parts exchanged for ones that do the same and tell of it: its
operations (model.alexnet.AlexNet.operations) and its exchange. So what is seen is what training computes, mistakes
included: nothing is computed a second time in another way.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import defaultdict
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from alexnet_jax.model.variants import Variant

DROPPED, KEPT, UNKNOWN = -1, 1, 0  # of a hidden unit: one that gave 0 already cannot be told


@dataclasses.dataclass(frozen=True)
class LayerLook:
    """What a layer gave in one forward pass: its products with the bias added, before ReLU, of all devices together.

    Attributes:
      mean, spread: of all its numbers; the spread is their standard deviation.
      differs: how much of it depends on the image: the standard deviation over the images of the batch, root mean
        square over units and places, as a fraction of the root mean square of everything. 0: it is the same for all.
      highest: float32 (units,), the largest number that each unit or map gave, over images and places.
    """

    mean: float
    spread: float
    differs: float
    highest: np.ndarray


class Watch:
    """Watches one model; `watched(model)` is to be used in its place, and `looks`, `inputs` and `masks` tell of it.

    Every program that was called must have ended before they are read: `settle` waits and empties them.
    """

    def __init__(self, variant: Variant) -> None:
        self._features = {layer.name: layer.features for layer in variant.layers}
        self._names = tuple(self._features)
        self._after_hidden = tuple(layer.name for layer in variant.dense[1:])
        self._drops_outputs = variant.drops == 'outputs'  # so that the layers after them read units behind dropout
        self._biases = 0  # added so far in the program that is being traced
        self._units: Array | None = None  # what the last activation gave
        self._heard: dict[str, list[Any]] = defaultdict(list)

    def watched(self, model: Any) -> Any:
        """The model with its operations and exchange watched; the same numbers and parameters."""
        self._operations, self._exchange = model.operations, model.exchange
        return model.clone(operations=_Operations(self, model.operations), exchange=self._exchanged)

    def settle(self) -> dict[str, list[Any]]:
        """Waits for all programs, and gives and forgets what was heard: {'input', LAYER, 'masks LAYER': [...]}."""
        jax.effects_barrier()
        heard, self._heard = dict(self._heard), defaultdict(list)
        return heard

    def looks(self, heard: dict[str, list[Any]]) -> dict[str, LayerLook]:
        """{layer: LayerLook} of what was heard of one or several forward passes."""
        return {name: self._look(heard[name]) for name in self._names if name in heard}

    def _look(self, words: list[Any]) -> LayerLook:
        mean, square, between = (float(np.mean([word[i] for word in words])) for i in range(3))
        differs = (between / square) ** 0.5 if square else 0.0
        return LayerLook(mean, max(0.0, square - mean**2) ** 0.5, differs, np.max([word[3] for word in words], axis=0))

    # What follows is called while the model is traced.

    def first_input(self, x: Array) -> None:
        """What conv1 reads."""
        if self._biases % len(self._names) == 0:
            x = lax.stop_gradient(x).astype(jnp.float32)
            self._tell('input', x.mean((0, 1, 2)), jnp.square(x).mean((0, 1, 2)), x.min(), x.max())

    def biased(self, x: Array) -> None:
        """What a layer gives before its activation."""
        name = self._names[self._biases % len(self._names)]
        self._biases += 1
        x = lax.stop_gradient(x).astype(jnp.float32)
        highest = x.max(tuple(range(x.ndim - 1)))[None]
        if highest.shape[1] < self._features[name]:  # the other units are on other devices
            highest = self._exchange(highest, self._after_hidden[0])
        self._tell(name, x.mean(), jnp.square(x).mean(), x.var(0).mean(), highest[0])

    def activated(self, x: Array) -> None:
        """What an activation gives: of a hidden layer, its units before dropout."""
        self._units = lax.stop_gradient(x)

    def _exchanged(self, x: Array, layer: str) -> Array:
        """What a layer reads that reads both towers: behind fc6 and fc7, whether each unit was kept or dropped."""
        if self._drops_outputs and layer in self._after_hidden and self._units is not None:
            kept = jnp.where(lax.stop_gradient(x) == 0, DROPPED, KEPT)
            told = jnp.where(self._units == 0, UNKNOWN, kept).astype(x.dtype)
            units = self._exchange(told, self._after_hidden[0])  # before fc8 one weird trick exchanges none
            self._tell(f'masks {layer}', units.astype(jnp.int8))
        return self._exchange(x, layer)

    def _tell(self, what: str, *values: Array) -> None:
        jax.debug.callback(functools.partial(self._hear, what), *values)

    def _hear(self, what: str, *values: Any) -> None:
        self._heard[what].append(tuple(np.asarray(value) for value in values))


class _Operations:
    """`operations`, a module of the model's, of which some tell `watch` what they read or give."""

    def __init__(self, watch: Watch, operations: Any) -> None:
        self._watch, self._operations = watch, operations

    def __getattr__(self, name: str) -> Any:
        return getattr(self._operations, name)

    def convolution(self, x: Array, *arguments: Any, **options: Any) -> Array:
        self._watch.first_input(x)
        return self._operations.convolution(x, *arguments, **options)

    def add_bias(self, x: Array, bias: Array) -> Array:
        y = self._operations.add_bias(x, bias)
        self._watch.biased(y)
        return y

    def relu(self, x: Array) -> Array:
        return self._told(self._operations.relu(x))

    def tanh(self, x: Array) -> Array:
        return self._told(self._operations.tanh(x))

    def _told(self, y: Array) -> Array:
        self._watch.activated(y)
        return y
