"""The Flax module: one device's share of AlexNet, whether that is one tower or both.

The only file that imports flax.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from alexnet_jax.model import layers
from alexnet_jax.model.variants import (
    TOWERS,
    ChannelNorm,
    Conv,
    Dense,
    MaxPool,
    Operation,
    Relu,
    SpatialNorm,
    Tanh,
    Variant,
)

Exchange = Callable[[Array, str], Array]


def no_exchange(x: Array, layer: str) -> Array:
    """What one device that holds both towers does before `layer`: nothing, it has all channels already."""
    del layer
    return x


def no_combining(products: Array) -> Array:
    """What a device that has all units does with fc8's products: nothing."""
    return products


class AlexNet(nn.Module):
    """AlexNet on a device that holds `local_towers` of the two towers.

    Its parameters are one tree of ordinary arrays, the same for every mesh: kernels (kh, kw, i, o) or (i, o) whose
    output axis is tower 0's channels, then tower 1's. A device with one tower holds its half of that axis, and of
    fc8 everything.

    Attributes:
      variant: the network, already scaled to its width.
      num_classes: outputs of fc8.
      local_towers: 2, or 1 where each tower's convolutions have a device of their own.
      dense_devices: how many devices share the hidden units of the fully connected layers, evenly.
      exchange: called as exchange(x, layer) before every layer that reads both towers; returns the channels of both.
      combine: called with fc8's products of the units that are here; returns those of all units.
      operations: `layers`, or `cpu_layers` with the same numbers in the forms that XLA:CPU runs fast.
      dtype: of activations and products, such as bfloat16, with logits in float32; None: that of images and parameters.
        Parameters and their gradients keep their own dtype, and normalisation is computed in float32 at least.
    """

    variant: Variant
    num_classes: int
    local_towers: int = TOWERS
    dense_devices: int = 1
    exchange: Exchange = no_exchange
    combine: Callable[[Array], Array] = no_combining
    operations: ModuleType = layers
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, images: Array, dropout: layers.DropoutStream | None = None) -> Array:
        """Logits (b, num_classes) of normalised images (b, input_size, input_size, 3), about -128..128.

        With `dropout` the network trains; without it, it is tested.
        """
        x = self._in_dtype(images)
        for conv in self.variant.convs:
            x = self._convolve(conv, self._exchanged(conv, x))
            for operation in conv.then:
                x = self._operate(operation, x)
        # The exchange comes before flattening: channels-last, so that fc6 reads (row, column, channel of both towers).
        *hidden, classifier = self.variant.dense
        x = self._flatten(hidden[0], self._exchanged(hidden[0], x))
        for index, layer in enumerate(hidden):
            if index:
                x = self._exchanged(layer, x)
            if self.variant.drops == 'inputs':
                x = self._drop(x, dropout and dropout.of_both_towers(), index)
            x = self._connect(layer, x, layer.features // self.dense_devices)
            x = self._operate(self.variant.activation, x)
            if self.variant.drops == 'outputs':
                x = self._drop(x, dropout, index)
        x = self._exchanged(classifier, x)
        logits = self._connect(classifier, x, self.num_classes, self.combine)
        return logits if self.dtype is None else logits.astype(jnp.float32)

    def _drop(self, x: Array, stream: layers.DropoutStream | None, layer: int) -> Array:
        rate, inverted = self.variant.dropout_rate, self.variant.inverted_dropout
        return layers.dropout(x, stream, layer=layer, rate=rate, inverted=inverted)

    def _in_dtype(self, x: Array) -> Array:
        return x if self.dtype is None else x.astype(self.dtype)

    def _groups(self, layer: Conv | Dense) -> int:
        """Into how many towers, each read by its own features alone, what `layer` reads here falls apart."""
        return min(self.local_towers, self.variant.towers) if layer.reads == 'tower' else 1

    def _exchanged(self, layer: Conv | Dense, x: Array) -> Array:
        return self.exchange(x, layer.name) if layer.reads == 'both' else x

    def _flatten(self, layer: Dense, x: Array) -> Array:
        """(b, h, w, c) -> (b, h * w * c): row, column, channel; tower by tower where `layer` reads its own tower."""
        towers = x.reshape(*x.shape[:3], self._groups(layer), -1)
        return jnp.moveaxis(towers, 3, 1).reshape(x.shape[0], -1)

    def _parameters(self, layer: Conv | Dense, shape: tuple[int, ...]) -> tuple[Array, Array]:
        kernel, bias = _Parameters(shape, layer.init_std, layer.init_bias, name=layer.name)()
        return self._in_dtype(kernel), self._in_dtype(bias)

    def _convolve(self, conv: Conv, x: Array) -> Array:
        groups = self._groups(conv)
        shape = (conv.kernel, conv.kernel, x.shape[-1] // groups, conv.features * self.local_towers // TOWERS)
        kernel, bias = self._parameters(conv, shape)
        with jax.named_scope(conv.name):
            x = self.operations.convolution(x, kernel, stride=conv.stride, padding=conv.padding, groups=groups)
            return self.operations.add_bias(x, bias)

    def _connect(
        self, layer: Dense, x: Array, features: int, combine: Callable[[Array], Array] = no_combining
    ) -> Array:
        groups = self._groups(layer)
        kernel, bias = self._parameters(layer, (x.shape[-1] // groups, features))
        with jax.named_scope(layer.name):
            if groups > 1:
                towers = zip(jnp.split(x, groups, axis=1), jnp.split(kernel, groups, axis=1), strict=True)
                return self.operations.add_bias(jnp.concatenate([a @ b for a, b in towers], axis=1), bias)
            return self.operations.add_bias(combine(x @ kernel), bias)

    def _operate(self, operation: Operation, x: Array) -> Array:
        match operation:
            case Relu():
                return self.operations.relu(x)
            case Tanh():
                return self.operations.tanh(x)
            case MaxPool(window, stride):
                return self.operations.max_pool(x, window=window, stride=stride)
            case ChannelNorm(size, k, alpha, beta, across_towers):
                towers = 1 if across_towers else min(self.local_towers, self.variant.towers)
                return self.operations.channel_norm(x, towers=towers, size=size, k=k, alpha=alpha, beta=beta)
            case SpatialNorm(size, k, alpha, beta):
                return self.operations.spatial_norm(x, size=size, k=k, alpha=alpha, beta=beta)


class _Parameters(nn.Module):
    """A layer's kernel ~ N(0, std^2) and constant bias, or both uniform (variants.Conv), under the layer's name."""

    shape: tuple[int, ...]
    std: float | None
    bias: float

    @nn.compact
    def __call__(self) -> tuple[Array, Array]:
        if self.std is None:
            bound = math.prod(self.shape[:-1]) ** -0.5
            fill_kernel = fill_bias = _uniform(bound)
        else:
            fill_kernel, fill_bias = nn.initializers.normal(self.std), nn.initializers.constant(self.bias)
        return self.param('kernel', fill_kernel, self.shape), self.param('bias', fill_bias, self.shape[-1:])


def _uniform(bound: float) -> Callable[..., Array]:
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)


def init_parameters(variant: Variant, key: Array, *, num_classes: int) -> dict[str, Any]:
    """A fresh parameter tree {layer: {'kernel', 'bias'}} of both towers, float32."""
    model = AlexNet(variant, num_classes)
    return model.init(key, jnp.zeros((1, variant.input_size, variant.input_size, 3)))['params']


def parameter_shapes(variant: Variant, *, num_classes: int) -> dict[str, Any]:
    """The tree of `init_parameters` as jax.ShapeDtypeStruct, without computing it."""
    return jax.eval_shape(lambda: init_parameters(variant, jax.random.key(0), num_classes=num_classes))
